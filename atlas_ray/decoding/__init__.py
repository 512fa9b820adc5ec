"""Searches over a step function and a trie; they know no model. Importing `searches`, their table, imports no torch."""
