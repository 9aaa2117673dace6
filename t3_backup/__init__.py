"""Verified backups of every T3 Code user's database."""

__version__ = "0.2.0"
