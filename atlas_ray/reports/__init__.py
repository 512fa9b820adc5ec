"""Pages, drawings and terminal output for people, from metrics and tables."""
