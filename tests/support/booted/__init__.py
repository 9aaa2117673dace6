"""Machines with a real systemd, and what tests do on them."""
