"""Downloads of the pictures that a catalogue names by URL."""
