"""Name the files of T3 Code's state folder and what each of them is."""

from __future__ import annotations

from pathlib import Path

STATE_DATABASE = Path(".t3/userdata/state.sqlite")  # beneath the home


# Beneath userdata. Logs, caches and server-runtime.json come again by themselves; worktrees are git's.
KEPT_FILES = ("attachments", "environment-id", "keybindings.json", "secrets", "settings.json")
