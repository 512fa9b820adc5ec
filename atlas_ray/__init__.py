"""Put every product of a catalogue into its place in a taxonomy, at any scale, on Ray."""

__version__ = "0.1.0"
