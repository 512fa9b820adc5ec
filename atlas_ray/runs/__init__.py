"""Finished runs: their record, their tables and what is counted in them."""
