"""Find the snapshots of an account that were lost, for commands that take no lock; accept it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace

from t3_backup.errors import StoreError
from t3_backup.store.catalog import explain_loss
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


def refuse_lost(store: Store, user: str, listing: Listing, names: Iterable[str]) -> None:
    """Raise StoreError where one of `names` is a snapshot that was lost."""
    if lost := set(names).intersection(find_lost(store, user, listing)):
        raise StoreError(f"{user}: {explain_loss(user, sorted(lost))}")


def explain_absence(store: Store, user: str) -> str:
    """Say of an account without a folder whether there was one."""
    if lost := explain_loss(user, find_lost(store, user, None)):
        return f"{user}: {lost}; its folder in {store.path} is gone"
    return f"no snapshots of {user} in {store.path}"


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
