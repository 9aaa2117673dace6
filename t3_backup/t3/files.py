"""Name the files of T3 Code's state folder and what each of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a worker starts faster without it
    from pathlib import Path

DATABASE_NAME = "state.sqlite"
BASE_DIR = ".t3"  # beneath the home
_USERDATA = "userdata"
STATE_IN_BASE = f"{_USERDATA}/{DATABASE_NAME}"  # beneath the base directory
STATE_FOLDER = f"{BASE_DIR}/{_USERDATA}"  # beneath the home, as what follows
STATE_DATABASE = f"{BASE_DIR}/{STATE_IN_BASE}"
NO_DATABASE = f"no {DATABASE_NAME}"  # what is said of an account without one

# A new version copies the old database into such a folder, links the copy to its new name, and
# removes the folder. Killed in between, it leaves the database with two names for ever.
IMPORT_FOLDER = ".v2-import-"  # and what makes it unique
IMPORT_COPY = "snapshot.sqlite"

# What comes again by itself, or from git. Beside a server-runtime.json that was put back no server
# would start.
REGENERATED = ("anonymous-id", "caches", "logs", "server-runtime.json", "worktrees")

# Beside the database.
KEPT_FILES = (
    "attachments",
    "browser-artifacts",
    "environment-id",
    "keybindings.json",
    "secrets",
    "settings.json",
    "themes",
)
# Of these, what must be of one moment: a secret that the settings name and that is not there, T3
# wipes at its next save; the identity and the key that signs with it name and prove the logins.
ONE_MOMENT = ("settings.json", "secrets", "environment-id")
# after "not packed: "
MIXED = "settings.json and secrets of one moment: they changed while they were packed"


def state_place(home: str, base_dir: str) -> tuple[str, str]:
    """Say where the state folder is: beneath which folder, by which path.

    The first is the home where the base directory is in it, and else the root: from there on no
    symlink is followed. An empty `base_dir` is the usual one.
    """
    if not base_dir:
        return home, STATE_FOLDER
    inside = home.rstrip("/") + "/"
    if base_dir.startswith(inside):
        return home, f"{base_dir.removeprefix(inside)}/{_USERDATA}"
    return "/", f"{base_dir.strip('/')}/{_USERDATA}"


def base_dir(home: Path) -> Path:
    """Say where the T3 of whoever has this home keeps its state."""
    return home / BASE_DIR


def state_database(home: Path) -> Path:
    """Say where the live database of whoever has this home is, for people to read.

    Only its owner opens it.
    """
    return home / STATE_DATABASE
