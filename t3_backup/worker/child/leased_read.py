"""A database that SQLite can't open beside others: read as it is, while nobody has it open.

In WAL mode SQLite needs a -shm that it can write to. There is none where the disk of the home is
full or mounted read-only, or where the -shm is somebody else's. As long as the kernel's lease on
the database lasts, nobody has it open for writing, and none is needed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import apsw

from t3_backup.errors import TryLater
from t3_backup.system import native
from t3_backup.worker.child.connection import connect, connect_alone
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.unreadable import UNOPENED


@contextmanager
def open_live(source: LiveDatabase, *, mmap: bool) -> Iterator[apsw.Connection]:
    """Open a database beside others, or else as it is.

    Raises as `open_leased` does.
    """
    try:
        connection = connect(source, mmap=mmap)
    except UNOPENED:
        with open_leased(source) as alone:
            if alone is None:
                raise
            yield alone
        return
    with closing(connection):
        yield connection


@contextmanager
def open_leased(source: LiveDatabase) -> Iterator[apsw.Connection | None]:
    """Open a database as it is; None where somebody has it open, or may have, or is to heal it.

    Whoever opens it meanwhile is not kept waiting: then what was read is worth nothing. Raises
    TryLater for that, and apsw.Error.
    """
    if source.has_journal() or (file := _take_lease(source)) is None:
        yield None
        return
    try:
        with closing(connect_alone(source)) as connection:
            yield connection
    finally:
        lasted = native.give_lease_back()
        os.close(file)
        if not lasted:
            raise TryLater(
                f"{source.path} was opened by another process while it was read; try again later"
            )


def can_be_read_leased(source: LiveDatabase) -> bool:
    """Tell whether a database can be read as it is."""
    with suppress(apsw.Error, TryLater), open_leased(source) as connection:
        return connection is not None
    return False


def _take_lease(source: LiveDatabase) -> int | None:
    """Open its file and take a lease on it; None where that is refused."""
    try:
        file = native.open_beneath(source.folder, source.name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        native.take_lease(file, signal.SIGURG)
    except OSError:
        os.close(file)
        return None
    return file
