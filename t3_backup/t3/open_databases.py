"""Know a database among the files that T3 has open, and what of it is reported. Pure.

T3 Code has moved its data before, and a backup that looks for a file by its name goes on
"succeeding" with one that never changes again. What T3's servers hold open is what T3 uses,
whatever it is called and wherever it lies. `open_findings` judges what is found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from t3_backup.t3.databases import ENDING, LOCKS
from t3_backup.t3.files import STATE_IN_BASE
from t3_backup.text import printable

ENDINGS = (ENDING, ".sqlite3", ".db")
_SIDECARS = ("-wal", "-shm", "-journal")
_LASTING = ("-wal", "-shm")  # a journal is removed by each commit
_FOLDER = os.path.dirname(STATE_IN_BASE)  # beneath the base directory
# beneath it, too: what T3 makes again, and copies of its own
_NO_DATA = ("caches", "runtime", "logs", f"{_FOLDER}/logs")
_IMPORT = ".v2-import-"  # a folder of T3's, from an older database to a newer
_IMPORTED = "snapshot.sqlite"
MOST = 16  # servers, strangers, problems
MOST_HELD = 256


def _at_most(most: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    def check(values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(values) > most:
            raise ValueError("there are too many")
        return values

    return check


_Text = Annotated[str, printable]
_Number = Annotated[int, range(1 << 64)]
_Pid = Annotated[int, range(1, 1 << 31)]


@dataclass(frozen=True)
class Server:
    """A T3 server that runs."""

    pid: _Pid
    program: _Text
    base_dir: _Text


@dataclass(frozen=True)
class Held:
    """A SQLite database that a process of T3's has open."""

    path: _Text
    pid: _Pid
    deleted: bool = False  # it, its -wal or its -shm has no name any more
    inode: _Number = 0  # 0: the kernel doesn't say
    device: _Text = ""  # MAJOR:MINOR; empty: it isn't known


@dataclass(frozen=True)
class Stranger:
    """A process that is none of T3's and has a database of T3's open."""

    pid: _Pid
    command: _Text
    path: _Text


@dataclass(frozen=True)
class OpenDatabases:
    """What a look at the processes of an account found, and what it could not find out."""

    servers: Annotated[tuple[Server, ...], _at_most(MOST)] = ()
    held: Annotated[tuple[Held, ...], _at_most(MOST_HELD)] = ()
    strangers: Annotated[tuple[Stranger, ...], _at_most(MOST)] = ()
    problems: Annotated[tuple[_Text, ...], _at_most(MOST)] = ()


def find_databases(names: Mapping[str, bool]) -> dict[str, bool]:
    """Find the SQLite databases among the files that one process has open.

    Both by path, with whether it was deleted. One is known by its ending, or by a -wal, -shm or
    -journal: SQLite has that open beside it, even where the database was given another name since.
    """
    found: dict[str, bool] = {}
    for path, deleted in names.items():
        if path.endswith(ENDINGS):
            found[path] = found.get(path, False) or deleted
        for end in _SIDECARS:
            if path.endswith(end):
                main = path.removesuffix(end)
                # it is opened after its database: one without it is of a file that has gone
                gone = end in _LASTING and (deleted or main not in names)
                found[main] = found.get(main, False) or names.get(main, False) or gone
    return found


def sidecars_too(databases: Iterable[str]) -> set[str]:
    """Return the paths of databases, and of what SQLite may have open beside each."""
    return {path + end for path in databases for end in ("", *_SIDECARS)}


def is_data(path: str, base_dirs: Iterable[str]) -> bool:
    """Tell whether the database at `path` may hold data that a person would miss.

    T3's locks and what is left of an import hold none, nor do its caches, its logs and its own
    runtime beneath a base directory.
    """
    folder, name = os.path.split(path)
    if name in LOCKS or (name == _IMPORTED and os.path.basename(folder).startswith(_IMPORT)):
        return False
    return not any(path.startswith(f"{base}/{name}/") for base in base_dirs for name in _NO_DATA)


def is_of(path: str, base_dir: str) -> bool:
    """Tell whether `path` is that of a database in the state folder of `base_dir`."""
    folder, name = os.path.split(path)
    return folder == f"{base_dir}/{_FOLDER}" and name.endswith(ENDING) and name not in LOCKS


def base_dirs_of(paths: Iterable[str]) -> set[str]:
    """Return the base directories, as the kernel names them, that databases at `paths` are of."""
    folders = {os.path.dirname(path) for path in paths}
    return {one.removesuffix(f"/{_FOLDER}") for one in folders if one.endswith(f"/{_FOLDER}")}


def find_held_names(
    held: Sequence[Held], base_dir: str, covered: Mapping[str, int], device: str = ""
) -> frozenset[str]:
    """Return which of the databases `covered` T3 has open; the rest as in `open_findings`."""
    folder = printable(f"{base_dir.rstrip('/')}/{_FOLDER}")
    return frozenset(
        name
        for name, inode in covered.items()
        if any(is_covered(one, folder, {printable(name): inode}, device) for one in held)
    )


def is_covered(one: Held, folder: str, covered: Mapping[str, int], device: str) -> bool:
    """Tell whether what is held is one of the databases `covered` in `folder`."""
    place, name = os.path.split(one.path)
    if one.deleted or name not in covered:
        return False
    inode = covered[name]
    if not one.inode or not inode:
        return place == folder
    elsewhere = device and one.device and device != one.device
    return one.inode == inode and not elsewhere


def limited(found: OpenDatabases) -> OpenDatabases:
    """Keep as much as one event carries, and say where that is not all."""
    problems = list(found.problems)
    for what, values, most in (
        ("servers", found.servers, MOST),
        ("open databases", found.held, MOST_HELD),
        ("processes with a database of T3's open", found.strangers, MOST),
    ):
        if len(values) > most:
            problems.insert(0, f"there are {len(values)} {what}, and {most} are told of")
    if len(problems) > MOST:
        problems[MOST - 1 :] = [f"and {len(problems) - MOST + 1} more problems"]
    return replace(
        found,
        servers=found.servers[:MOST],
        held=found.held[:MOST_HELD],
        strangers=found.strangers[:MOST],
        problems=tuple(problems),
    )
