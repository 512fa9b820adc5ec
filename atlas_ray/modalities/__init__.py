"""Modalities: a product's pictures and texts, as models take them."""

MODALITIES = ("picture", "title", "description")
"""The inputs of a model: a product's picture and its texts."""
