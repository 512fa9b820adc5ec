"""What every stream over the pictures of a catalogue is made of: outcomes, fetching, writing, resuming."""
