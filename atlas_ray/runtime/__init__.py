"""Everything that the commands share on Ray: the connection, and the parts of every stream over a catalogue."""
