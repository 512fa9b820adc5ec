"""The commands by what they are about: their flags, and one library call each.

Heavy imports stand inside the functions, so that `--help` answers at once.
"""
