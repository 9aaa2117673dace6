"""Copy all databases of an account, so that their moments are as near to each other as can be.

Those in WAL mode are pinned, the live one last, and copied, the live one first; each pin ends with
its own copy. One that is not in WAL mode is never pinned: that would fail its server's commits. A
database that can't be copied costs no other its copy, unless it is the live one.
"""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import NamedTuple

import apsw

from t3_backup.errors import Failure, explain
from t3_backup.t3.databases import Candidate, choose_live
from t3_backup.worker.child.archive_walk import find_unchanged
from t3_backup.worker.child.connection import connect, is_wal
from t3_backup.worker.child.copy import budget_of, copy_database, copy_pin, sqlite_errors
from t3_backup.worker.child.leased_read import can_be_read_leased
from t3_backup.worker.child.pinned_read import Budget, Unfinished, pin_read
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.task import Task
from t3_backup.worker.child.vfs import Destination
from t3_backup.worker.operations.backup import Copied, CopiedAll, CopiedDatabase, CopyDatabases
from t3_backup.worker.protocol import CHANNEL, Phase

_OTHERS_SHARE = 0.5  # of the time that is left once the live one is copied


class _Pin(NamedTuple):
    """A pinned read of one database, and how to end it."""

    connection: apsw.Connection
    budget: Budget  # from the pin on
    moment: str
    at: float  # of time.monotonic
    held: ExitStack


def serve_copy_databases(task: Task, operation: CopyDatabases) -> CopiedAll:
    """Copy the databases that were found, each into its file.

    Then look whether the files beside them have changed.
    """
    copied = copy_databases(task, mmap=operation.mmap)
    if operation.archive is None:
        return copied
    task.report(copied)  # it stands, even if the user's own file system doesn't answer what follows
    with suppress(OSError):
        found = find_unchanged(task.sources[0].folder, task.job.uid, operation.archive)
        return replace(copied, beside=found)
    return copied


def copy_databases(task: Task, *, mmap: bool) -> CopiedAll:
    """Copy each of the task's databases into its file.

    Raises what the copy of the live one raises.
    """
    copies = _Copies(task, mmap)
    with ExitStack() as held:
        usable = [one for one in task.sources if copies.open(one, held)]
        live = choose_live(
            Candidate(one.name, held=one.name in task.held, changed_ns=one.changed_ns())
            for one in usable or task.sources
        )
        others = [one for one in task.sources if one.name != live]
        for source in (*others, task.database(live)):
            copies.pin(source)
        copies.copy(task.database(live))
        # first those that hold a pin: the rest may have to wait for others
        others.sort(key=lambda one: one.name not in copies.pins)
        for count, source in enumerate(others):
            try:
                # none of them takes the time that the proof of all needs
                copies.copy(source, _OTHERS_SHARE / (len(others) - count))
            except (Failure, OSError) as error:
                if isinstance(error, OSError) and error.errno == errno.ECANCELED:
                    raise  # it is the end of all, no fault of this one
                copies.done[source.name] = CopiedDatabase(source.name, None, explain(error))
    moments = copies.moments
    return CopiedAll(
        tuple(copies.done[name] for name in sorted(copies.done)),
        live,
        max(moments, default=0.0) - min(moments, default=0.0),
    )


class _Copies:
    """The copies of one account's databases."""

    def __init__(self, task: Task, mmap: bool) -> None:
        self.task, self.mmap = task, mmap
        self.opened: dict[str, tuple[apsw.Connection, ExitStack]] = {}
        self.pins: dict[str, _Pin] = {}
        self.done: dict[str, CopiedDatabase] = {}
        self.moments: list[float] = []  # of time.monotonic

    def open(self, source: LiveDatabase, held: ExitStack) -> bool:
        """Open a database that is in WAL mode, as long as `held`.

        Tell whether it may be the live one: junk that was put there today is not, nor what can't be
        read, nor what others than T3 have locked.
        """
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(closing(connect(source, mmap=self.mmap)))
                if is_wal(connection):
                    self.opened[source.name] = connection, held.enter_context(stack.pop_all())
            except apsw.CantOpenError:
                return source.name in self.task.held or can_be_read_leased(source)
            except (apsw.NotADBError, apsw.BusyError, apsw.LockedError):
                return source.name in self.task.held
            except apsw.Error:
                pass  # it is tried again when it is its turn to be copied
        return True

    def pin(self, source: LiveDatabase) -> None:
        """Pin a database that is open.

        What can't be pinned now is tried again when it is its turn to be copied.
        """
        if (found := self.opened.pop(source.name, None)) is None:
            return
        connection, stack = found
        at, budget = time.monotonic(), budget_of(self.task, source)
        try:
            moment = stack.enter_context(pin_read(connection))
        except apsw.Error:
            stack.close()
            return
        self.pins[source.name] = _Pin(connection, budget, moment, at, stack)

    def copy(self, source: LiveDatabase, share: float = 1.0) -> None:
        """Copy a database, by its pin if it has one, in a share of the time that is left.

        Raises as `copy_database` does.
        """
        task = self.task
        task.report(Phase("copy", source.size))
        with Destination(task.files[source.name], CHANNEL) as destination:
            copied = self._copy_pin(source, destination, share)
            if copied is None:
                self.moments.append(time.monotonic())
                budget = budget_of(task, source, share)
                copied = copy_database(source, destination, budget, mmap=self.mmap)
        self.done[source.name] = CopiedDatabase(source.name, copied)

    def _copy_pin(
        self, source: LiveDatabase, destination: Destination, share: float
    ) -> Copied | None:
        """Copy what is pinned, and end the pin; None where there is none, or it took too long."""
        if (pin := self.pins.pop(source.name, None)) is None:
            return None
        pin.budget.seconds = pin.budget.elapsed() + max(0.0, self.task.seconds_left()) * share
        with pin.held, sqlite_errors(source, destination):
            try:
                copied = copy_pin(pin.connection, pin.moment, destination, pin.budget)
            except (Unfinished, apsw.BusyError, apsw.LockedError):
                destination.reset()
                return None
        self.moments.append(pin.at)
        return copied
