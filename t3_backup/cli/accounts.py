"""Go through the accounts of a store, as the reading commands do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from t3_backup.errors import StoreError
from t3_backup.output.console import Console
from t3_backup.output.documents import AccountContents
from t3_backup.restore import pending
from t3_backup.restore.pending import PendingRestore
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.catalog import explain_loss
from t3_backup.store.listing import Listing
from t3_backup.store.losses import explain_absence, find_lost
from t3_backup.store.store import Store


def pending_restores(store: Store, user: str | None, out: Console) -> dict[str, PendingRestore]:
    """Find and tell the restores that have not ended: of `user`, or where None, all."""
    found = [one for one in pending.find_pending(store) if user in (None, one.user)]
    for restore in found:
        out.warn(restore.text)
    return {restore.user: restore for restore in found}


def account_contents(
    store: Store, user: str, listing: Listing, restores: Mapping[str, PendingRestore]
) -> AccountContents:
    """Return what the store has of one account."""
    names = store.list_set_aside(user) + store.list_leftovers(user)
    leftovers, restore = [str(store.path / name) for name in names], restores.get(user)
    lost = find_lost(store, user, listing)
    entries = store.read_catalog(user).entries.values()
    proofs = {entry.name: entry.proof for entry in entries if entry.proof is not None}
    return AccountContents(
        user, listing.stored_snapshots(), listing.strays, leftovers, restore, lost, proofs
    )


class AccountDirs:
    """Open the folder of `user`, or of all accounts, one after the other.

    One of many that can't be opened is told, and counted; so is one that is gone, with snapshots.
    """

    def __init__(self, store: Store, user: str | None, out: Console) -> None:
        self._store = store
        self._user = user
        self._out = out
        self.refused = 0

    def __iter__(self) -> Iterator[AccountDir]:
        for user in [self._user] if self._user is not None else self._store.users():
            try:
                account_dir = self._store.account_dir(user)
            except StoreError as error:
                if self._user is not None:
                    raise
                self._out.warn(str(error))
                self.refused += 1
                continue
            if account_dir is not None:
                with account_dir:
                    yield account_dir
            elif self._user is not None:
                raise StoreError(explain_absence(self._store, user))
            # else it is that of a user without a database, which a run makes and removes again
        if self._user is None:
            self._tell_gone()

    def _tell_gone(self) -> None:
        gone = set(self._store.users_with_catalog()).difference(self._store.users())
        for user in sorted(gone):
            if lost := find_lost(self._store, user, None):
                self._out.warn(f"{user}: {explain_loss(user, lost)}")
                self.refused += 1
