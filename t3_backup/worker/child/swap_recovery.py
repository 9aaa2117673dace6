"""Complete or undo a swap that was interrupted, as the databases' owner.

What is in place says which. Where nothing was exchanged, all is undone. Where something was, the
rest is exchanged, too: nothing is ever taken out of its place again, since it may have been worked
with. So what is there is the old state or the new one, and never a part of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from t3_backup.errors import Failure, InUse, SourceRefused, explain
from t3_backup.store.replacement import Replacement
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import SIDECARS
from t3_backup.text import quote
from t3_backup.worker.child.live_files import PROBE, LiveFiles
from t3_backup.worker.child.swap import exchange, move_sidecars
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations.restore import RecoverSwap, Swapped


def serve_recover_swap(task: Task, operation: RecoverSwap) -> Swapped:
    """Complete or undo a swap that was interrupted."""
    place = LiveFiles.of(task.job)
    return recover_swap(place, operation.aside, operation.databases, begun=operation.begun)


def recover_swap(
    place: LiveFiles, aside: str, databases: Sequence[Replacement], *, begun: bool
) -> Swapped:
    """Complete or undo a swap that was interrupted; again is harmless.

    `begun`: the exchange may have been begun, and what was beside the old ones moved. Raises InUse
    where an old one is open that is still to be exchanged; Failure where a person must look, and
    then nothing of theirs is removed.
    """
    if not begun:
        for one in databases:
            _remove_staged(place, aside, one)
        place.sync()
        return Swapped("old")
    where = {one.file: _look(place, aside, one) for one in databases}
    for one in databases:
        if where[one.file] == "other" and (one.old is not None or "new" in where.values()):
            _require_nothing_left(place, aside, one)
    if "new" not in where.values():
        return _undo(place, aside, databases, where)
    for one in databases:
        if where[one.file] == "old" and (one.staged is None or place.has(one.file + aside)):
            _advance(place, aside, one)
    place.sync()
    return _remove_old(place, aside, databases)


def _look(place: LiveFiles, aside: str, one: Replacement) -> str:
    """Say which one is in place: old, new, or another."""
    now = place.identity(one.file)
    if one.old is None and now is None:
        return "old"
    if one.old is not None and now is not None and now.inode == one.old.inode:
        return "old"
    if one.staged is None:
        return "new" if place.has(one.file + aside) else "other"
    return "new" if now is not None and now.inode == one.staged.inode else "other"


def _require_nothing_left(place: LiveFiles, aside: str, one: Replacement) -> None:
    """Raise Failure where something of the swap is left beside another database.

    What a person has removed, they have decided.
    """
    name = one.file + aside
    if left := [name + ending for ending in ("", *SIDECARS) if place.has(name + ending)]:
        raise Failure(
            f"{place.path_of(one.file)} is neither the old nor the restored database; next to it: "
            f"{', '.join(left)}: "
            "put the right one in place, and remove the rest"
        )


def _undo(
    place: LiveFiles, aside: str, databases: Sequence[Replacement], where: dict[str, str]
) -> Swapped:
    stuck = list[str]()
    for one in databases:
        if where[one.file] == "old":
            _give_back(place, aside, one)
            try:
                _remove_staged(place, aside, one)
            except OSError as error:  # the old ones are in place, whole: that ends nothing
                path = place.path_of(one.file + aside)
                why = error.strerror or explain(error)
                stuck.append(f"{path} could not be removed: {why}; next: rm -f {quote(path)}")
        elif one.old is None:
            # a server has made one of its own; a -wal without a database stays where it was put
            place.remove(one.file + aside)
    place.sync()
    return Swapped("other" if "other" in where.values() else "old", stuck=tuple(stuck))


def _give_back(place: LiveFiles, aside: str, one: Replacement) -> None:
    """Give the old one, which is in place, what was beside it."""
    name = one.file + aside
    moved = [ending for ending in one.beside if place.has(name + ending)]
    now = place.identity(one.file)
    if moved and one.old is not None and now is not None:
        with place.hold_lease(one.file):
            place.drop_empty(one.file)
        there = set(place.sidecars(one.file))
        if not now.holds_the_same(one.old) or there - set(one.beside) or there & set(moved):
            _require_decision(place, one.file, name, moved)
    move_sidecars(place, name, one.file, moved)


def _require_decision(place: LiveFiles, file: str, name: str, moved: Sequence[str]) -> None:
    theirs = ", ".join(name + ending for ending in moved)
    raise Failure(
        f"{place.path_of(file)} was written to without {theirs}, a part of it: "
        "decide which is right, then remove these"
    )


def _remove_staged(place: LiveFiles, aside: str, one: Replacement) -> None:
    """Remove what was staged; the snapshot that it is of lies in the store.

    Whoever opened it may have left something beside it.
    """
    for ending in ("", *SIDECARS, PROBE):
        if place.is_file(one.file + aside + ending):
            place.remove(one.file + aside + ending)


def _advance(place: LiveFiles, aside: str, one: Replacement) -> None:
    """Exchange one that is left, with all that is beside the old one."""
    name = one.file + aside
    with ExitStack() as held:
        lease = held.enter_context(place.hold_lease(one.file)) if one.old is not None else None
        there = place.sidecars(one.file)
        if moved := [ending for ending in there if place.has(name + ending)]:
            _require_decision(place, one.file, name, moved)
        move_sidecars(place, one.file, name, there)
        place.sync()
        if lease is not None:
            lease.require_held()
        exchange(place, aside, one)


def _remove_old(place: LiveFiles, aside: str, databases: Sequence[Replacement]) -> Swapped:
    """Remove what came out, and is what a snapshot holds; say what stays, and why."""
    held, changed, stuck = list[str](), list[str](), list[str]()
    for one in databases:
        name = one.file + aside
        if one.keep or one.old is None or not place.has(name):
            continue
        try:
            if not _remove_one(place, name, one.old):
                changed.append(one.file)
        except InUse:
            held.append(one.file)
        except SourceRefused:  # it has another name, or another owner
            changed.append(one.file)
        except (Failure, OSError) as error:  # the new ones are in place: that ends nothing
            stuck.append(f"{place.path_of(name)} could not be removed: {explain(error)}")
            changed.append(one.file)
    place.sync()
    return Swapped("new", tuple(held), tuple(changed), tuple(stuck))


def _remove_one(place: LiveFiles, name: str, old: FileIdentity) -> bool:
    """Remove one that came out, as `name`, where it is as it was. Raises as `hold_lease` does."""
    place.identity(name)
    with place.hold_lease(name):
        place.drop_empty(name)
        now = place.identity(name)
        if now is None or not now.holds_the_same(old) or place.sidecars(name):
            return False
        place.remove(name)
    return True
