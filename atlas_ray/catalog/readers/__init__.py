"""Readers of the formats of a source: each cuts it into parts, and reads the rows of a part."""
