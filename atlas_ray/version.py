"""The version, for those who say which program wrote or asks something."""

__version__ = "0.1.0"
