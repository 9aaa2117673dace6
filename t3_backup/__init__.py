"""Verified backups of every T3 Code user's state.sqlite."""

__version__ = "0.2.0"
