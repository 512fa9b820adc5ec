"""A finished run for other systems: files for a shop's backend, and tables of a warehouse."""
