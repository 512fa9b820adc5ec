"""A drawn shop and catalogue, and the demo that runs every step on them."""
