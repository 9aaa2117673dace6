"""Name the ways in which a snapshot's copy is made."""

from __future__ import annotations

# clone: the bytes of a database that nobody has open and that has no -wal
METHODS = ("online", "vacuum", "clone")
