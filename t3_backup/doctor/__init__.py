"""Check the machine."""
