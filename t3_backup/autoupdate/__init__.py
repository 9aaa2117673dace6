"""The command `t3-autoupdate`: change T3's version, and take it back with the data."""
