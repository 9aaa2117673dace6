"""Find the snapshots of an account that were lost, for commands that take no lock; accept it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from t3_backup.store.listing import Listing
from t3_backup.store.store import Store


def find_lost(store: Store, user: str, listing: Listing | None) -> tuple[str, ...]:
    """Return the names of what was sealed and is not there; `listing` None: the folder is gone.

    What a run publishes or removes meanwhile is not lost: what seems to be is looked at once more,
    between two readings of the catalog. Raises StoreError and OSError.
    """
    lost = store.read_catalog(user).lost(listing)
    if not lost:
        return ()
    still = set(lost).intersection(store.read_catalog(user).lost(_read_listing(store, user)))
    return tuple(sorted(still.intersection(store.read_catalog(user).lost(None))))


def accept_losses(store: Store, user: str) -> tuple[str, ...]:
    """Note that the lost snapshots of an account are known to be, and return their names.

    The store is locked. Raises StoreError and OSError.
    """
    lost = store.read_catalog(user).lost(_read_listing(store, user))
    if lost:
        store.change_catalog(
            user, lambda known: [replace(known[name], state="removed") for name in lost]
        )
    return lost


def _read_listing(store: Store, user: str) -> Listing | None:
    with contextlib.ExitStack() as held:
        if (account_dir := store.account_dir(user)) is None:
            return None
        return held.enter_context(account_dir).read_listing()
