"""A saved page turned into a product. Nothing here asks the network."""
