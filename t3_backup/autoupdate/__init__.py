"""Change T3's version, and take it back with the data: the command `t3-autoupdate`."""
