"""Catalogues: import from other layouts, corrections, selections and splits."""
