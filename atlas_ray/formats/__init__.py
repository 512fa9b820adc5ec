"""Tables and texts as other programs write them, and the readers of their values."""
