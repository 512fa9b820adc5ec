"""Bulk categorization: every picture of a catalogue to a category path, on Ray Data."""
