"""List the ways to copy that are compared: each makes a copy at a given place.

Nothing here measures. Every way reads the same live database; what it leaves behind is removed by
`bench.bench`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from demo.writer import moment

PYTHON = "/usr/bin/python3"
SQLITE = "sqlite3"
BACKUP_LIMIT_S = 30.0

IDLE = "nothing running"
VACUUM = "VACUUM INTO, no fsync"
VACUUM_SYNC = "VACUUM INTO, fsync"
BACKUP = "sqlite3 .backup"
OURS = "our copy, fsync"
RUN = "our whole run: copied, proven, sealed"
HAND_MADE = "VACUUM INTO, fsync, integrity_check, sha256sum"
LIMIT_IDLE = "limit: copy_file_range, fsync, no writer"
LIMIT = "copy_file_range, fsync"

# Straight from the kernel's copy to the sync: the least that any copy of a file can cost here.
_COPY_FILE_RANGE = """
import os, sys
source = os.open(sys.argv[1], os.O_RDONLY)
target = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
left = os.fstat(source).st_size
while left > 0 and (done := os.copy_file_range(source, target, left)):
    left -= done
os.fsync(target)
"""


@dataclass(frozen=True)
class Place:
    """Where a way reads and writes. `folder` is empty, and on the file system of the results."""

    source: Path
    folder: Path
    user: str | None  # who owns the source, if there is a user made for it
    unnamed: int = -1  # descriptor of an unnamed file in `folder`

    @property
    def target(self) -> Path:
        """The file a way makes."""
        return self.folder / "copy.sqlite"


@dataclass(frozen=True)
class Method:
    """One row of the table. `commands` run one after the other, from the root of the tree."""

    title: str
    commands: Callable[[Place], list[list[str]]]
    # the file that holds the copy; None: none that is one moment
    product: Callable[[Place], str | None]
    live: bool = True  # whether the writer writes meanwhile
    limit_s: float = 600.0
    rounds: int | None = None  # at most so many


def _vacuum(place: Place) -> list[str]:
    return [SQLITE, str(place.source), f"VACUUM INTO '{place.target}'"]


def _sync(place: Place) -> list[str]:
    return ["sync", str(place.target), str(place.folder)]


def _backup(place: Place) -> list[list[str]]:
    return [[SQLITE, str(place.source), f".backup '{place.target}'"]]


def _hand_made(place: Place) -> list[list[str]]:
    check = [SQLITE, str(place.target), "PRAGMA integrity_check"]
    return [_vacuum(place), _sync(place), check, ["sha256sum", str(place.target)]]


def plain_copy(source: Path, target: Path) -> list[str]:
    """Return the command that copies a file to a new one, and syncs it."""
    return [PYTHON, "-I", "-S", "-c", _COPY_FILE_RANGE, str(source), str(target)]


def _limit(place: Place) -> list[list[str]]:
    return [plain_copy(place.source, place.target)]


def _ours(place: Place) -> list[list[str]]:
    return [[PYTHON, "-m", "bench.ours", str(place.source), str(place.unnamed)]]


def _run(place: Place) -> list[list[str]]:
    map_file = place.folder / "map"
    map_file.write_text(f"{place.user}={place.user}\n", encoding="utf-8")
    dest = place.folder / "store"
    dest.mkdir(mode=0o700)
    options = ["--user", str(place.user), "--dest", str(dest), "--map", str(map_file), "--json"]
    return [[PYTHON, "-m", "t3_backup", "run", *options]]


def _target(place: Place) -> str | None:
    return str(place.target)


def _nothing(_: Place) -> str | None:
    return None


def _named(place: Place) -> str | None:
    # SQLite opens by name only. Imported here: the other ways can do without the extension.
    from t3_backup.system import native  # noqa: PLC0415

    folder = os.open(place.folder, os.O_PATH | os.O_DIRECTORY)
    try:
        native.link_unnamed(place.unnamed, folder, place.target.name)
    finally:
        os.close(folder)
    return str(place.target)


def _sealed(place: Place) -> str | None:
    return next((str(path) for path in place.folder.glob("store/*/*.sqlite")), None)


METHODS = (
    Method(LIMIT_IDLE, _limit, _nothing, live=False),
    Method(VACUUM, lambda place: [_vacuum(place)], _target),
    Method(VACUUM_SYNC, lambda place: [_vacuum(place), _sync(place)], _target),
    Method(OURS, _ours, _named),
    Method(RUN, _run, _sealed),
    Method(HAND_MADE, _hand_made, _target),
    Method(LIMIT, _limit, _nothing),
    # Last and seldom: for half a minute the database grows, and there is no result.
    Method(BACKUP, _backup, _target, limit_s=BACKUP_LIMIT_S, rounds=2),
)


def moments(path: str) -> int:
    """Count the moments that the copy at `path` shows: 1 is right, 0 unreadable."""
    name = f"file:{path}?immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(name, uri=True)) as copy:
        return len(moment(copy))
    return 0


def unnamed_file(folder: Path) -> int:
    """Make a file without a name, as the store begins a snapshot with."""
    return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)


def absent(root: Path) -> dict[str, str]:
    """List the ways that cannot be measured here, and why."""
    reasons = {}
    if os.geteuid() != 0:
        reasons[RUN] = "needs root: a user is made who owns the database"
    if not list((root / "t3_backup").glob("_copier*.so")):
        reasons[OURS] = reasons[RUN] = "the C extension is not built (make build)"
    return reasons
