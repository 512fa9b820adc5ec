"""Storage, objects, downloads and addresses: every byte from outside passes here."""
