"""Downloads of the pictures of a catalogue that are named by URL."""
