"""Cleaning a catalogue before a model is trained on it."""
