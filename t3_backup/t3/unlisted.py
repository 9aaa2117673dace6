"""Find what lies in T3 Code's folder and is on no list: neither saved nor known to come again.

T3 Code gets new files with new versions. What a backup doesn't know, people should hear of before
they miss it.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Sequence

from t3_backup.system.sqlite import SIDECARS
from t3_backup.t3.databases import ENDING, MOST
from t3_backup.t3.files import IMPORT_FOLDER, KEPT_FILES, REGENERATED

_KNOWN = frozenset((*KEPT_FILES, *REGENERATED))
_DATABASE = (ENDING, *(ENDING + ending for ending in SIDECARS))
_REPLACED = f"{ENDING}.replaced-"  # what a restore leaves, and names itself
_LONGEST = 255  # NAME_MAX of Linux; a byte is never more than one character
_SHOWN = 5
_PLAIN = r"[A-Za-z0-9_.+-]+"


def is_unlisted(name: str, *, is_folder: bool = True) -> bool:
    """Tell whether a file or folder of that `name` is neither saved nor known to come again.

    Databases are told of by themselves.
    """
    return (
        name not in _KNOWN
        and (is_folder or not name.endswith(_DATABASE))
        and not name.startswith(IMPORT_FOLDER)
        and _REPLACED not in name
        and 0 < len(name) <= _LONGEST
        and "/" not in name
    )


def unlisted(folder: int) -> tuple[str, ...]:
    """List what is on no list in the open `folder`: the first MOST names in their order.

    Raises OSError. Only names are read, and nothing is opened.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return tuple(heapq.nsmallest(MOST, _names(fd)))
    finally:
        os.close(fd)


def _names(fd: int) -> Iterator[str]:
    with os.scandir(fd) as entries:
        for entry in entries:
            if is_unlisted(entry.name, is_folder=_is_folder(entry)):
                yield entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # it has gone
        return False


def explain(names: Sequence[str]) -> str:
    """Say which printable `names` are on no list, and what to do next."""
    shown = [name if re.fullmatch(_PLAIN, name) else f'"{name}"' for name in names[:_SHOWN]]
    more = f"{'at least ' if len(names) == MOST else ''}{len(names) - _SHOWN} more"
    which = ", ".join(shown) + (f" and {more}" if len(names) > _SHOWN else "")
    return (
        f"userdata also holds {which}: not saved; next: where T3 made it, look for a newer "
        "t3-backup; all else is better kept in another folder"
    )
