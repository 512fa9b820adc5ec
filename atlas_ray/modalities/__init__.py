"""What a product is to a model: its pictures and its texts."""
