"""Put other databases in the place of live ones, one after the other, as their owner.

Each new one is written under a name of its own, beside the live one, and gets its final owner and
mode there. Then the two names change places (renameat2 RENAME_EXCHANGE) under write leases on all
files, old and new: nobody has one of them open, and who opens one in between is noticed. Until the
last has its place, all can be put back. What is beside an old one that could not be checkpointed
goes along under the new name of its database, before the first exchange: it can never be taken for
a part of the new one. What nothing takes the place of goes aside last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from t3_backup.errors import InUse
from t3_backup.store.replacement import Replacement
from t3_backup.system import native
from t3_backup.worker.child.live_files import Lease, LiveFiles
from t3_backup.worker.child.stage import read_census
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.restore import SwapDatabases, Swapped


def serve_swap_databases(task: Task, operation: SwapDatabases) -> Swapped:
    """Let what was staged and the live databases change places."""
    place = LiveFiles.of(task.job)
    return swap_databases(place, operation.aside, operation.databases)


def swap_databases(place: LiveFiles, aside: str, databases: Sequence[Replacement]) -> Swapped:
    """Let the databases that are staged, with the ending `aside`, and the live ones change places.

    In their order; durable when this returns. Raises InUse where somebody has one of them open, or
    has changed an old one; then all is as before. SourceError where what was staged can't be read.
    """
    for one in databases:
        if one.staged is not None:
            read_census(place, one.file + aside)
    with ExitStack() as held:
        new, old = dict[str, Lease](), list[Lease]()
        for one in databases:
            if one.staged is not None:
                new[one.file] = held.enter_context(place.hold_lease(one.file + aside))
            if one.old is not None:
                old.append(held.enter_context(place.hold_lease(one.file)))
                old[-1].require_same(one.old)
            if set(place.sidecars(one.file)) != set(one.beside):
                raise InUse(f"{place.path_of(one.file)} was opened by another process in between")
        _swap(place, aside, databases, new, old)
        # Nobody has an old one. Whoever opens a new one now waits until this process lets go of
        # it, and has it for good.
    return Swapped("new")


def _swap(
    place: LiveFiles,
    aside: str,
    databases: Sequence[Replacement],
    new: Mapping[str, Lease],
    old: Sequence[Lease],
) -> None:
    done: list[Replacement] = []
    try:
        for one in databases:
            move_sidecars(place, one.file, one.file + aside, one.beside)
        place.sync()
        for one in databases:
            _require_held(old)
            exchange(place, aside, one)
            done.append(one)
        place.sync()
        _require_held(old)
    except BaseException:
        if all(new[one.file].holds() for one in done if one.staged is not None):
            _undo(place, aside, databases, done)
        else:
            # Somebody has opened a new one, and may have something of it beside it: it stays. They
            # wait as long as the leases are held, and must not find old ones beside it.
            for one in databases[len(done) :]:
                exchange(place, aside, one)
            place.sync()
        raise


def _require_held(leases: Sequence[Lease]) -> None:
    for lease in leases:
        lease.require_held()


def exchange(place: LiveFiles, aside: str, one: Replacement) -> None:
    """Let one database change places with the one that is staged for it, if there are both.

    Raises InUse where somebody has made one of that name in between, OSError.
    """
    name = one.file + aside
    try:
        if one.staged is None:
            native.rename_noreplace(place.folder, one.file, name)
        elif one.old is None:
            native.rename_noreplace(place.folder, name, one.file)
        else:
            native.rename_exchange(place.folder, name, one.file)
    except FileExistsError:
        made = place.path_of(name if one.staged is None else one.file)
        raise InUse(f"{made} was made by another process in between") from None


def _undo(
    place: LiveFiles, aside: str, databases: Sequence[Replacement], done: Sequence[Replacement]
) -> None:
    """As it was before the first exchange, from wherever it got to: the last one first."""
    for one in reversed(done):
        name = one.file + aside
        if one.staged is None:
            native.rename_noreplace(place.folder, name, one.file)
        elif one.old is None:
            native.rename_noreplace(place.folder, one.file, name)
        else:
            native.rename_exchange(place.folder, name, one.file)
    for one in databases:
        if one.old is not None:
            move_sidecars(place, one.file + aside, one.file, one.beside)
    place.sync()


def move_sidecars(place: LiveFiles, old: str, new: str, endings: Sequence[str]) -> None:
    """Move what is beside one name to another. Raises OSError."""
    for ending in endings:
        if place.has(old + ending):
            native.rename_noreplace(place.folder, old + ending, new + ending)
