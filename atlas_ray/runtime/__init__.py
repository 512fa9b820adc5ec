"""Ray, once: the connection, and what every stream over a catalogue shares."""
