"""Name the files of T3 Code's state folder and what each of them is."""

from __future__ import annotations

from pathlib import Path

STATE_DATABASE = Path(".t3/userdata/state.sqlite")  # beneath the home

# Beneath userdata. Logs, caches and server-runtime.json come again by themselves; worktrees are git's.
KEPT_FILES = ("attachments", "environment-id", "keybindings.json", "secrets", "settings.json")


def state_database(home: Path) -> Path:
    """Say where the live database of whoever has this home is, for people to read. Only its owner opens it."""
    return home / STATE_DATABASE
