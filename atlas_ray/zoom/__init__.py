"""The zoom filter: close-ups told from pictures of whole products."""
