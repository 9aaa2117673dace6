"""Find the files and folders to archive beside a database, and know them again by marks.

Regular files, folders and symlinks of the names in KEPT_FILES; all else is passed over, and named.
No symlink is followed: it is itself what is packed.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from t3_backup.system import native
from t3_backup.system.access import may_access
from t3_backup.t3.files import KEPT_FILES, ONE_MOMENT
from t3_backup.worker.child.digest import sha256
from t3_backup.worker.operations.backup import Packed, WriteArchive

# What an archive may hold: a path shorter than the system's limit, and a time that is near.
LONGEST_PATH = 4096
LATEST_S = (1 << 40) - 1
# What was changed so lately may be changed again with the same times: a file system's clock ticks
# every few milliseconds.
_FRESH_NS = 2_000_000_000
_MOST_PASSED = 100  # that are told of
_LINK = "a symlink, which is saved as such: what it leads to is not"
_MOST_LOOKED_AT = 2000  # beside the copy of a database, which they must not hold up


@dataclass(frozen=True)
class Entry:
    """A file, folder or symlink, by its path beneath the packed folder."""

    path: str
    status: os.stat_result
    target: str = ""  # where a symlink leads

    @property
    def is_folder(self) -> bool:
        """Tell a folder from all else."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Tell what has content."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def state(self) -> tuple[object, ...]:
        """Return what is another one once anything was done to it."""
        s = self.status
        return (self.path, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)

    @property
    def bytes(self) -> int:
        """Return the bytes of content."""
        return self.status.st_size if self.is_file else 0


@dataclass(frozen=True)
class Inventory:
    """What there is at one time."""

    entries: list[Entry]  # in the order of their paths
    passed: list[str]  # what is not packed, and why
    fingerprint: str  # of the entries; empty where something is too fresh

    @property
    def bytes(self) -> int:
        """Return the bytes of content."""
        return sum(entry.bytes for entry in self.entries)

    def describe(self, *, unchanged: bool) -> Packed:
        """Say what an archive of it would hold."""
        marks = mark_entries(self.entries, self.passed)
        links = (f"{entry.path}: {_LINK}" for entry in self.entries if entry.target)
        return Packed(
            entries=len(self.entries),
            content_bytes=self.bytes,
            fingerprint=self.fingerprint,
            unchanged=unchanged,
            passed=tuple(itertools.islice((*self.passed, *links), _MOST_PASSED)),
            sealed=tuple(f"{name}={mark}" for name, mark in marks.items()),
        )


def take_inventory(folder: int, uid: int, most: int = sys.maxsize) -> Inventory | None:
    """List what is to be packed of the open `folder`.

    Returns None where that is more than `most` things. Raises OSError.
    """
    passed: list[str] = []
    entries: list[Entry] = []
    for entry in walk_entries(folder, uid, passed):
        entries.append(entry)
        if len(entries) + len(passed) > most:
            return None
    entries.sort(key=lambda entry: entry.path)
    return Inventory(entries, passed, fingerprint(entries, time.time_ns()))


def is_still(folder: int, uid: int, seen: Inventory) -> bool:
    """Tell whether what must be of one moment is as it was `seen`. Raises OSError.

    Then there was a moment, between both looks, at which all of it was so.
    """
    passed: list[str] = []
    entries = sorted(walk_entries(folder, uid, passed, ONE_MOMENT), key=lambda entry: entry.path)
    return _moment(entries, passed) == _moment(seen.entries, seen.passed)


def _moment(entries: list[Entry], passed: list[str]) -> object:
    return (
        [entry.state for entry in entries if top_name(entry.path) in ONE_MOMENT],
        sorted(told for told in passed if top_name(told) in ONE_MOMENT),
    )


def find_unchanged(folder: int, uid: int, archive: WriteArchive) -> Packed | None:
    """Describe what is in the open `folder` where no archive of it need be written.

    None is needed of nothing, nor of what is as in the archive that is known: all of it, so that it
    is of one moment as that archive is. Returns None where one may be needed; many files are left
    to the worker that would pack them. Raises OSError.
    """
    found = take_inventory(folder, uid, _MOST_LOOKED_AT)
    if found is None or found.bytes > archive.limit:
        return None
    unchanged = found.fingerprint == archive.known != ""
    return found.describe(unchanged=unchanged) if unchanged or not found.entries else None


def mark_entries(entries: list[Entry], passed: list[str]) -> dict[str, str]:
    """Mark what each name in KEPT_FILES holds, where nothing beneath it was `passed` over.

    A mark is the same after a move, until somebody changes what it is of. `entries` are in order. A
    folder is its names, a file also what changes with its content. Its ctime tells of each change,
    but a move changes it, too: that of what is moved itself alone.
    """
    digests = {name: sha256() for name in KEPT_FILES}
    for entry in entries:
        s = entry.status
        known = (
            (entry.path, s.st_mode)
            if entry.is_folder
            else (entry.path, s.st_mode, s.st_size, s.st_mtime_ns, s.st_ino)
            + ((s.st_ctime_ns,) if "/" in entry.path else ())
        )
        digests[top_name(entry.path)].update(repr(known).encode("utf-8", "surrogateescape") + b"\n")
    there = {top_name(entry.path) for entry in entries} - {top_name(told) for told in passed}
    return {name: digests[name].hexdigest() for name in sorted(there)}


def top_name(path: str) -> str:
    """Return the name in KEPT_FILES of a path, or of a text that begins with one and a colon."""
    return path.partition("/")[0].partition(":")[0]


def walk_entries(
    folder: int, uid: int, passed: list[str], names: Sequence[str] = KEPT_FILES
) -> Iterator[Entry]:
    """Walk all that is to be packed of `names`; `passed` gets what is not, with the reason."""
    waiting = list(names)
    while waiting:
        path = waiting.pop()
        try:
            if len(os.fsencode(path)) >= LONGEST_PATH:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            status, readable, target = _look(folder, path)
            if (reason := explain_unfit(status, uid)) is None and not readable:
                reason = os.strerror(errno.EACCES)
            if reason is None:
                yield Entry(path, status, target)
                if stat.S_ISDIR(status.st_mode):
                    waiting += [f"{path}/{name}" for name in _names(folder, path)]
            else:
                passed.append(f"{path}: {reason}")
        except FileNotFoundError:
            continue  # it was never there, or has gone in the meantime
        except OSError as error:
            passed.append(f"{path}: {error.strerror}")


def explain_unfit(status: os.stat_result, uid: int) -> str | None:
    """Say why what has this status is not packed; None: it is."""
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        return "no regular file"
    return f"it belongs to uid {status.st_uid}" if status.st_uid != uid else None


def _look(folder: int, path: str) -> tuple[os.stat_result, bool, str]:
    """What is there, whether a file that it is can be read, and where a symlink leads."""
    parent, _, name = path.rpartition("/")
    above = native.open_beneath(folder, parent or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return status, True, os.readlink(name, dir_fd=above)
        readable = not stat.S_ISREG(status.st_mode) or may_access(above, name, os.R_OK)
        return status, readable, ""
    finally:
        os.close(above)


def _names(folder: int, path: str) -> list[str]:
    fd = native.open_beneath(folder, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def fingerprint(entries: list[Entry], now_ns: int) -> str:
    """Fingerprint `entries`: the same one, and nothing was done to any of them.

    Empty where that could not be told, since something is too fresh.
    """
    digest = sha256()
    for entry in entries:
        s = entry.status
        if max(s.st_mtime_ns, s.st_ctime_ns) > now_ns - _FRESH_NS:
            return ""
        digest.update(repr(entry.state).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
