"""Know the names of T3's databases, and find those that a backup does not cover.

T3 Code has moved its data to another file before (`statev2.sqlite`), and a backup that knows the
old file alone goes on "succeeding" with what never changes again. So the rule is the other way
round: each `*.sqlite` in the folder is data, unless its name is known to be that of none.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Sequence

from t3_backup.t3.files import DATABASE_NAME

ENDING = ".sqlite"
SUCCESSOR = "statev2.sqlite"
# Held in a transaction for as long as a server lives, and empty: never copied, restored or removed.
LOCKS = frozenset(
    {"server-lock.sqlite", "server-launcher-lock.sqlite", "server-database-access.sqlite"}
)
MOST = 16  # names that are told of
_LONGEST = 255  # NAME_MAX of Linux; a byte is never more than one character
_SHOWN = 3
_PLAIN = r"[A-Za-z0-9_.+-]+"


def is_uncovered(name: str) -> bool:
    """Tell whether `name` is that of a database which is not copied."""
    return (
        name.endswith(ENDING)
        and name != DATABASE_NAME
        and name not in LOCKS
        and len(name) <= _LONGEST
        and "/" not in name
    )


def uncovered(folder: int) -> tuple[str, ...]:
    """List the databases in the open `folder` that are not copied, T3's own first.

    Raises OSError. Only names are read, and nothing is opened: a symlink, and a file that can't be
    read, may be data. A folder is none. It takes time, but no memory, whatever the folder holds.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return tuple(heapq.nsmallest(MOST, _names(fd), key=lambda name: (name != SUCCESSOR, name)))
    finally:
        os.close(fd)


def _names(fd: int) -> Iterator[str]:
    with os.scandir(fd) as entries:
        for entry in entries:
            if is_uncovered(entry.name) and not _is_folder(entry):
                yield entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # what it is can't be told: it may be data
        return False


def summary(names: Sequence[str]) -> str:
    """Say in a few words which databases, by printable names, are not backed up."""
    shown = [name if re.fullmatch(_PLAIN, name) else f'"{name}"' for name in names[:_SHOWN]]
    more = f"{'at least ' if len(names) == MOST else ''}{len(names) - _SHOWN} more"
    which = ", ".join(shown) + (f" and {more}" if len(names) > _SHOWN else "")
    return f"{which} {'is' if len(names) == 1 else 'are'} not backed up"


def explain(names: Sequence[str]) -> str:
    """Say which databases are not backed up, why, and what to do next."""
    return (
        f"{summary(names)}: this version of t3-backup copies {DATABASE_NAME} alone; next: "
        "install a t3-backup that copies it too, or move a file that is not T3's out of userdata"
    )
