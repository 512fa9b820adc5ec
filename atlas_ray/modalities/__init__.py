"""What a product is to a model: its pictures and its texts."""

MODALITIES = ("picture", "title", "description")
"""What there is of a product for a model to look at."""
