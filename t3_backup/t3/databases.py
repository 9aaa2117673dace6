"""Know the names of T3's databases, find them, and tell which one the server works with.

T3 Code has moved its data to another file before (`statev2.sqlite`), and a backup that knows the
old file alone goes on "succeeding" with what never changes again. So the rule is the other way
round: each `*.sqlite` in the folder is data, unless its name is known to be that of none.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from t3_backup.t3.files import DATABASE_NAME
from t3_backup.t3.ledger import Ledger, check_ledger
from t3_backup.text import printable, quote

ENDING = ".sqlite"
SUCCESSOR = "statev2.sqlite"
KNOWN = (DATABASE_NAME, SUCCESSOR)
# Held in a transaction for as long as a server lives, and empty: never copied, restored or removed.
LOCKS = frozenset(
    {"server-lock.sqlite", "server-launcher-lock.sqlite", "server-database-access.sqlite"}
)
MOST = 16  # databases of an account that are copied, and as many more that are told of
_LONGEST = 255  # NAME_MAX of Linux; a byte is never more than one character
_LONGEST_USED = 200  # bytes: SQLite, and a swap, append endings to a name
_SHOWN = 3
_PLAIN = r"[A-Za-z0-9_.+/-]+"


class Candidate(NamedTuple):
    """A database of which one is the live one."""

    file: str
    held: bool  # whether T3's server has it open
    changed_ns: int  # when it, or its -wal, changed last


def is_database(name: str) -> bool:
    """Tell whether a file of that name beside T3's others is a database to be copied."""
    return (
        name.endswith(ENDING)
        and name not in LOCKS
        and len(name) <= _LONGEST
        and "/" not in name
        and "\0" not in name
    )


def name_problem(name: str) -> str:
    """Say why a database of that name can't be copied or swapped; empty: it can be."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "its name is not UTF-8, and SQLite opens no other"
    return "its name is too long" if length > _LONGEST_USED else ""


def require_name(value: str) -> str:
    """Return the name of a database, and let nothing else be one of a file in a home.

    Raises ValueError.
    """
    if not is_database(value):
        raise ValueError(f"{printable(repr(value))} is no name of a database")
    return value


@dataclass(frozen=True)
class DatabaseState:
    """One database of an account, as its owner reads it."""

    file: Annotated[str, require_name]
    bytes: Annotated[int, range(1 << 62)]  # its -wal among them
    held: bool  # whether T3's server has it open
    level: int | None = None  # the newest migration; None: not T3's, or it can't be read
    ledger: Annotated[Ledger, check_ledger] | None = None  # None: as of the level


def find_names(folder: int) -> tuple[list[str], list[str]]:
    """List the databases in the open `folder`, T3's own first: MOST, and as many more at most.

    Raises OSError. Only names are read, and nothing is opened: a symlink, and a file that can't be
    read, may be data. A folder is none, but for one by a name of T3's. It takes time, but no
    memory, whatever the folder holds.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = heapq.nsmallest(2 * MOST, _names(fd), key=lambda name: (name not in KNOWN, name))
    finally:
        os.close(fd)
    return found[:MOST], found[MOST:]


def _names(fd: int) -> Iterator[str]:
    with os.scandir(fd) as entries:
        for entry in entries:
            known = entry.name in KNOWN  # then a folder is told of: it is in the way
            if is_database(entry.name) and (known or not _is_folder(entry)):
                yield entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # what it is can't be told: it may be data
        return False


def choose_live(candidates: Iterable[Candidate]) -> str:
    """Choose the database that the server works with.

    It is one that the server has open; of several, or of none, the one that changed last. Of two
    that changed together it is the later T3's.
    """
    return max(
        candidates, key=lambda one: (one.held, one.changed_ns, one.file == SUCCESSOR, one.file)
    ).file


def stale_successor(own: str | None, files: Collection[str]) -> str:
    """Name the database that a newer T3 has made beside that of an account's program; or empty.

    `own` is what the account's program makes (None: not known), `files` are there. A newer T3 that
    is called by hand makes it; the next version that works with it goes on from there, without
    what was done since.
    """
    return SUCCESSOR if own == DATABASE_NAME and {own, SUCCESSOR} <= {*files} else ""


def explain_stale(user: str, file: str, program: str) -> str:
    """Say what is the matter with what `stale_successor` named, and what to do about it."""
    return (
        f"a newer t3 was called by hand, and has made {shown_name(file)}, which {program} does "
        "not work with: what is done from now on is not in it, and a later version would go on "
        f"without that; next: t3-autoupdate put-aside --user {quote(user)}"
    )


def shown_name(name: str) -> str:
    """Write a database's name or path for people: in quotes where it is an odd one."""
    return name if re.fullmatch(_PLAIN, name) else f'"{printable(name)}"'


def summary(names: Sequence[str]) -> str:
    """Say in a few words which databases, by printable names, are not backed up."""
    shown = [shown_name(name) for name in names[:_SHOWN]]
    more = f"{'at least ' if len(names) == MOST else ''}{len(names) - _SHOWN} more"
    which = ", ".join(shown) + (f" and {more}" if len(names) > _SHOWN else "")
    return f"{which} {'is' if len(names) == 1 else 'are'} not backed up"


def explain_obstacle(name: str, obstacle: str) -> str:
    """Say that a server can't write to a database, and why."""
    return f"{shown_name(name)} can't be written to: {obstacle}"


def explain_missing(user: str, name: str, snapshot: str, reason: str) -> str:
    """Say that a database is not in a snapshot, why, and what to do next."""
    where = f"{shown_name(name)} is not in {snapshot}: {printable(reason)}"
    return f"{where}; next: {missing_remedy(user, name)}"


def missing_remedy(user: str, name: str) -> str:
    """Say what to do about a database that can't be copied."""
    if name not in KNOWN:
        return "move it out of userdata if it is not T3's"
    restore = f"t3-backup-state restore {quote(user)} --database {name}"
    return f"run again; where that fails too, put an older one back: {restore}"


def explain(names: Sequence[str]) -> str:
    """Say which databases are not backed up, why, and what to do next.

    What is a path, T3 has open elsewhere.
    """
    many = [name for name in names if "/" not in name]
    opened = [name for name in names if "/" in name]
    found = []
    if many:
        found.append(
            f"{summary(many)}: at most {MOST} databases of an account are copied; next: "
            "t3-backup-state run, or move a file that is not T3's out of userdata"
        )
    if opened:
        found.append(
            f"{summary(opened)}: T3 has {'it' if len(opened) == 1 else 'them'} open; next: "
            "t3-backup-state doctor, which says what to type"
        )
    return "; ".join(found)
