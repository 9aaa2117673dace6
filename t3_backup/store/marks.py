"""Change what a person may change of a sealed snapshot: accept it, pin it, unpin it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from t3_backup.errors import Failure, UsageError
from t3_backup.store.catalog import Entry, Proof
from t3_backup.store.faults import NOT_AS_SEALED, find_unsound
from t3_backup.store.losses import explain_absence, refuse_lost
from t3_backup.store.manifest import Manifest
from t3_backup.store.selection import select_snapshot
from t3_backup.store.store import Store
from t3_backup.text import format_time


class MarkChange(NamedTuple):
    """The snapshots that were changed, as they are from now on, and what to say of it."""

    changed: list[Manifest]
    lines: list[str]


def set_pins(
    store: Store, user: str, names: Sequence[str], now: datetime, *, pinned: bool
) -> MarkChange:
    """Pin or unpin the snapshots of `user` that `names` mean.

    All of them, or none where one means nothing. The store is locked. Raises UsageError and Failure
    as `select_snapshot` does, and Failure where the account has no folder.
    """
    account_dir = store.account_dir(user)
    if account_dir is None:
        raise Failure(explain_absence(store, user))
    result = MarkChange([], [])
    with account_dir:
        listing = account_dir.read_listing()
        refuse_lost(store, user, listing, names)
        snapshots = listing.snapshots
        chosen = {
            snapshot.name: snapshot
            for snapshot in [_select_named(snapshots, name, now) for name in names]
        }
        for name, snapshot in chosen.items():
            if (snapshot.pinned_at is not None) == pinned:
                result.lines.append(
                    f"{user} {name} is {'pinned already' if pinned else 'not pinned'}"
                )
                continue
            changed = replace(snapshot, pinned_at=format_time(now) if pinned else None)
            account_dir.replace_manifest(changed)
            result.changed.append(changed)
            result.lines.append(f"{'pinned' if pinned else 'unpinned'} {user} {name}")
    return result


def _select_named(snapshots: Sequence[Manifest], name: str, now: datetime) -> Manifest:
    try:
        return select_snapshot(snapshots, name, now)
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--at ")) from None  # there is no such flag here


def accept_snapshots(store: Store, user: str, now: datetime) -> list[Manifest]:
    """End the hold of an account: suspect and damaged ones stop pruning no longer.

    Somebody has looked at them, and at those whose last proof failed or that have lost an image.
    Each keeps its verdict, and so never counts among the good ones that retention keeps. Returns
    the accepted ones as they are from now on. Raises Failure where the account has no folder, and
    nothing is known of it.
    """
    account_dir = store.account_dir(user)
    if account_dir is None:
        if store.read_catalog(user).entries:
            return []
        raise Failure(f"no snapshots of {user} in {store.path}")
    accepted = []
    with account_dir:
        listing = account_dir.read_listing()
        holed = {image.snapshot.name for image in listing.lost_images}
        known = account_dir.read_catalog().entries
        if list(_settle_proofs(known, holed, now)):  # else a store that is read-only will do
            account_dir.change_catalog(lambda known: _settle_proofs(known, holed, now))
        waiting = find_unsound(listing.snapshots, account_dir.read_catalog()).waiting
        for snapshot in listing.snapshots:
            if snapshot.holds or snapshot.name in waiting:
                accepted.append(replace(snapshot, accepted_at=format_time(now)))
                account_dir.replace_manifest(accepted[-1])
    return accepted


def _settle_proofs(
    known: Mapping[str, Entry], holed: Iterable[str], now: datetime
) -> Iterator[Entry]:
    """Return the entries that are to be others, so that what is known to fail can be accepted.

    What has lost an image has failed, and no failure is of the future: a wrong clock has said so.
    """
    for name in holed:
        proof = known[name].proof if name in known else None
        if proof is None or proof.outcome != "failed":
            yield Entry(name, "sealed", Proof(now, "failed", NOT_AS_SEALED))
    for entry in known.values():
        if entry.proof is not None and entry.proof.outcome == "failed" and entry.proof.when > now:
            yield replace(entry, proof=replace(entry.proof, when=now))
