"""Change T3's version, and take it back with the data.

It is the command `t3-autoupdate`.
"""
