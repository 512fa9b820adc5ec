"""Extraction of a product from a saved page, without any network access."""
