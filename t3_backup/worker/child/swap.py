"""Put another database in the place of a live one, in one step, as its owner; and put right what an interrupted exchange left.

The new one is written under a name of its own, beside the live one, and gets its final owner and mode there. Then the two
names change places (renameat2 RENAME_EXCHANGE) under a write lease on the old file: nobody has it open, and who opens it in
between is noticed. What is beside an old state that could not be folded goes along under the new name of its database, before
the exchange: it can never be taken for a part of the new one.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import closing

import apsw

from t3_backup.errors import Failure, InUse, SourceError
from t3_backup.store.census import Census
from t3_backup.system import native
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import NOFOLLOW, SIDECARS
from t3_backup.worker.child import census
from t3_backup.worker.child.copy import clear_header
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.source import execute
from t3_backup.worker.protocol import Copied, Healed, Staged

_PROBE = ".probe"


def stage_database(place: LiveFiles, snapshot: int, aside: str) -> Staged:
    """Write what is in the descriptor `snapshot` beside the live database, under the name `aside`, durably.

    Raises SourceError and OSError, and then nothing is left of it.
    """
    live = place.identity()
    fd = place.create(aside, live)
    try:
        native.copy(snapshot, fd, os.fstat(snapshot).st_size)
        native.sync_file(fd, str(place.path.parent / aside))
        place.sync()
        _must_exchange(place, aside, live)
        staged = FileIdentity.of(os.fstat(fd))
        return Staged(live, staged, read_census(place, aside))
    except BaseException:
        place.remove(aside)
        raise
    finally:
        os.close(fd)


def _must_exchange(place: LiveFiles, aside: str, live: FileIdentity | None) -> None:
    """What keeps two names from changing places is found now, while the server runs. Raises SourceError."""
    probe = aside + _PROBE
    os.close(place.create(probe, None))
    try:
        native.rename_exchange(place.folder, aside, probe)
        native.rename_exchange(place.folder, aside, probe)
    except OSError as error:
        raise SourceError(f"{place.path.parent}: two files can't change places in one step here: {error.strerror}") from None
    finally:
        place.remove(probe)
    if live is None:
        return
    try:
        os.close(native.open_beneath(place.folder, place.name, os.O_RDWR | os.O_NONBLOCK))
    except PermissionError as error:
        if error.errno == errno.EPERM:
            raise SourceError(f"{place.path} can't be changed: it is immutable (lsattr(1)): chattr -i") from None


def clone_database(place: LiveFiles, old: FileIdentity, file: int, taken: Census) -> Copied:
    """Copy the folded state `old` into the empty `file`, sharing its extents where the file system can. Raises InUse, OSError."""
    began = time.monotonic()
    with place.alone() as lease:
        lease.must_be(old)
        native.copy(lease.fd, file, old.bytes)
        lease.must_hold()
    clear_header(file)
    return Copied("clone", old.bytes, 0, 0, time.monotonic() - began, taken, None, None)


def swap_databases(place: LiveFiles, aside: str, old: FileIdentity | None, beside: Sequence[str]) -> Healed:
    """Let the database that is staged as `aside` and the live one, seen as `old`, change places; durable when this returns.

    What is `beside` the old one (endings), since it could not be folded, goes along, ahead of it. Raises InUse where somebody has
    one of them open, or has changed the old one; then all is as before. SourceError where what was staged can't be read.
    """
    read_census(place, aside)
    if old is None:
        _install(place, aside, beside)
        return Healed("new", False)
    with place.alone(aside) as new, place.alone() as lease:
        lease.must_be(old)
        if set(place.sidecars()) != set(beside):
            raise InUse(f"{place.path} was opened by another process in between")
        try:
            _move_sidecars(place, place.name, aside, beside)
            place.sync()
            lease.must_hold()
            native.rename_exchange(place.folder, aside, place.name)
            place.sync()
            lease.must_hold()
        except BaseException:
            if new.holds():  # else somebody has opened the new one, and may have something of it beside it: it stays
                _put_back(place, aside, old, beside)
            raise
        # Nobody has the old one. Whoever opens the new one now waits until this process lets go of it, and has it for good.
    return Healed("new", False)


def read_census(place: LiveFiles, name: str) -> Census:
    """The census, without counts, of a database that is not in WAL mode and has nothing beside it. Raises SourceError."""
    path = str(place.path.parent / name)
    try:
        with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY | NOFOLLOW)) as connection:
            execute(connection, "PRAGMA trusted_schema=0", "PRAGMA temp_store=memory", "PRAGMA mmap_size=0")
            execute(connection, "PRAGMA query_only=1", "BEGIN")
            return census.take_census(connection, count_rows=False)
    except apsw.Error as error:
        raise SourceError(f"{path} can't be read as a database: {error}") from error


def _install(place: LiveFiles, aside: str, beside: Sequence[str]) -> None:
    """The same where there is no live one; what is beside its name moves out of the way first, and stays there."""
    _move_sidecars(place, place.name, aside, beside)
    place.sync()
    try:
        native.rename_noreplace(place.folder, aside, place.name)
    except FileExistsError:
        raise InUse(f"{place.path} was made by another process in between") from None
    place.sync()


def _move_sidecars(place: LiveFiles, old: str, new: str, endings: Sequence[str]) -> None:
    for ending in endings:
        if place.has(old + ending):
            native.rename_noreplace(place.folder, old + ending, new + ending)


def _put_back(place: LiveFiles, aside: str, old: FileIdentity, beside: Sequence[str]) -> None:
    """As it was before the exchange, from wherever it got to."""
    now = place.identity()
    if now is None or now.inode != old.inode:
        native.rename_exchange(place.folder, aside, place.name)
    _move_sidecars(place, aside, place.name, beside)
    place.sync()


def heal_swap(
    place: LiveFiles,
    aside: str,
    old: FileIdentity | None,
    staged: FileIdentity | None,
    beside: Sequence[str],
    *,
    begun: bool,
    keep: bool,
) -> Healed:
    """Complete or undo what was interrupted: see what is in place, `old` or what was `staged`. Again is harmless.

    `begun`: the exchange may have been begun, and what was `beside` the old one moved. `keep`: what came out of it stays under the
    name `aside`. Nothing is ever taken out of its place again: it may have been worked with since. Raises Failure where a person
    must look, and then nothing is removed.
    """
    now = place.identity()
    if not begun or (old is not None and now is not None and now.inode == old.inode) or (old is None and now is None):
        _undo(place, aside, old, now, beside)
        return Healed("old", False)
    if old is None and now is not None and (staged is None or now.inode != staged.inode):
        place.remove(aside)  # a server has made one of its own; a -wal without a database stays where it was put
        place.sync()
        return Healed("other", False)
    if now is None or staged is None or now.inode != staged.inode:
        left = [aside + ending for ending in ("", *SIDECARS) if place.has(aside + ending)]
        if not left:
            return Healed("other", False)
        raise Failure(
            f"{place.path} is neither what it was nor what was put back; beside it lies {', '.join(left)}: "
            "put the right one in place, and remove the rest"
        )
    if keep or not place.has(aside):
        return Healed("new", False)
    try:
        with place.alone(aside):
            place.remove(aside)
    except InUse:
        return Healed("new", True)
    place.sync()
    return Healed("new", False)


def _undo(place: LiveFiles, aside: str, old: FileIdentity | None, now: FileIdentity | None, beside: Sequence[str]) -> None:
    """The old one is in place: give it back what was beside it, and remove what was staged."""
    moved = [ending for ending in beside if place.has(aside + ending)]
    if moved and old is not None and now is not None:
        with place.alone():
            place.drop_empty()
        others = set(place.sidecars()) - set(beside) | set(place.sidecars()) & set(moved)
        if not now.holds_the_same(old) or others:
            theirs = ", ".join(aside + ending for ending in moved)
            raise Failure(f"{place.path} was written to without {theirs}, a part of it: decide which is right, then remove these")
    _move_sidecars(place, aside, place.name, moved)
    # What was staged; the snapshot that it is of lies in the store. Whoever opened it may have left something beside it.
    for ending in ("", *SIDECARS, _PROBE):
        if place.is_file(aside + ending):
            place.remove(aside + ending)
    place.sync()
