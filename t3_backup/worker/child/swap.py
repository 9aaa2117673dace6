"""Put another database in the place of a live one, in one step, as its owner.

A swap that was interrupted is recovered. The new one is written under a name of its own, beside the
live one, and gets its final owner and mode there. Then the two names change places (renameat2
RENAME_EXCHANGE) under a write lease on the old file: nobody has it open, and who opens it in
between is noticed. What is beside an old state that could not be folded goes along under the new
name of its database, before the exchange: it can never be taken for a part of the new one.
"""

from __future__ import annotations

from collections.abc import Sequence

from t3_backup.errors import Failure, InUse
from t3_backup.system import native
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import SIDECARS
from t3_backup.worker.child.live_files import PROBE, LiveFiles
from t3_backup.worker.child.stage import read_census
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.restore import RecoverSwap, SwapDatabases, Swapped


def serve_swap_databases(task: Task, operation: SwapDatabases) -> Swapped:
    """Let what was staged and the live database change places."""
    place = LiveFiles.open(task.job.home, task.job.uid)
    return swap_databases(place, operation.aside, operation.old, operation.beside)


def serve_recover_swap(task: Task, operation: RecoverSwap) -> Swapped:
    """Complete or undo a swap that was interrupted."""
    place = LiveFiles.open(task.job.home, task.job.uid)
    seen = operation.old, operation.staged, operation.beside
    return recover_swap(place, operation.aside, *seen, begun=operation.begun, keep=operation.keep)


def swap_databases(
    place: LiveFiles, aside: str, old: FileIdentity | None, beside: Sequence[str]
) -> Swapped:
    """Let the database that is staged as `aside` and the live one change places.

    The live one was seen as `old`. It is durable when this returns. What is `beside` the old one
    (endings), since it could not be folded, goes along, ahead of it. Raises InUse where somebody
    has one of them open, or has changed the old one; then all is as before. SourceError where what
    was staged can't be read.
    """
    read_census(place, aside)
    if old is None:
        _install_new(place, aside, beside)
        return Swapped("new", False)
    with place.hold_lease(aside) as new, place.hold_lease() as lease:
        lease.require_same(old)
        if set(place.sidecars()) != set(beside):
            raise InUse(f"{place.path} was opened by another process in between")
        try:
            _move_sidecars(place, place.name, aside, beside)
            place.sync()
            lease.require_held()
            native.rename_exchange(place.folder, aside, place.name)
            place.sync()
            lease.require_held()
        except BaseException:
            # else somebody has opened the new one, and may have something of it beside it: it stays
            if new.holds():
                _undo_swap(place, aside, old, beside)
            raise
        # Nobody has the old one. Whoever opens the new one now waits until this process lets go of
        # it, and has it for good.
    return Swapped("new", False)


def _install_new(place: LiveFiles, aside: str, beside: Sequence[str]) -> None:
    """The same where there is no live one.

    What is beside its name moves out of the way first, and stays there.
    """
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


def _undo_swap(place: LiveFiles, aside: str, old: FileIdentity, beside: Sequence[str]) -> None:
    """As it was before the exchange, from wherever it got to."""
    now = place.identity()
    if now is None or now.inode != old.inode:
        native.rename_exchange(place.folder, aside, place.name)
    _move_sidecars(place, aside, place.name, beside)
    place.sync()


def recover_swap(
    place: LiveFiles,
    aside: str,
    old: FileIdentity | None,
    staged: FileIdentity | None,
    beside: Sequence[str],
    *,
    begun: bool,
    keep: bool,
) -> Swapped:
    """Complete or undo a swap that was interrupted; again is harmless.

    What is in place says which: `old`, or what was `staged`. `begun`: the exchange may have been
    begun, and what was `beside` the old one moved. `keep`: what came out of it stays under the name
    `aside`. Nothing is ever taken out of its place again: it may have been worked with since.
    Raises Failure where a person must look, and then nothing is removed.
    """
    now = place.identity()
    if (
        not begun
        or (old is not None and now is not None and now.inode == old.inode)
        or (old is None and now is None)
    ):
        _remove_staged(place, aside, old, now, beside)
        return Swapped("old", False)
    if old is None and now is not None and (staged is None or now.inode != staged.inode):
        # a server has made one of its own; a -wal without a database stays where it was put
        place.remove(aside)
        place.sync()
        return Swapped("other", False)
    if now is None or staged is None or now.inode != staged.inode:
        left = [aside + ending for ending in ("", *SIDECARS) if place.has(aside + ending)]
        if not left:
            return Swapped("other", False)
        raise Failure(
            f"{place.path} is neither the old nor the restored database; next to it: "
            f"{', '.join(left)}: "
            "put the right one in place, and remove the rest"
        )
    if keep or not place.has(aside):
        return Swapped("new", False)
    try:
        with place.hold_lease(aside):
            place.remove(aside)
    except InUse:
        return Swapped("new", True)
    place.sync()
    return Swapped("new", False)


def _remove_staged(
    place: LiveFiles,
    aside: str,
    old: FileIdentity | None,
    now: FileIdentity | None,
    beside: Sequence[str],
) -> None:
    """The old one is in place: give it back what was beside it, and remove what was staged."""
    moved = [ending for ending in beside if place.has(aside + ending)]
    if moved and old is not None and now is not None:
        with place.hold_lease():
            place.drop_empty()
        others = set(place.sidecars()) - set(beside) | set(place.sidecars()) & set(moved)
        if not now.holds_the_same(old) or others:
            theirs = ", ".join(aside + ending for ending in moved)
            raise Failure(
                f"{place.path} was written to without {theirs}, a part of it: "
                "decide which is right, then remove these"
            )
    _move_sidecars(place, aside, place.name, moved)
    # What was staged; the snapshot that it is of lies in the store. Whoever opened it may have left
    # something beside it.
    for ending in ("", *SIDECARS, PROBE):
        if place.is_file(aside + ending):
            place.remove(aside + ending)
    place.sync()
