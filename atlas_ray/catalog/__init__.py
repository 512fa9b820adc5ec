"""The catalogue: import from other layouts, and a sample that the project draws itself."""
