"""Similar products: a vector a product from a trained model, an index of them, and what it is asked."""
