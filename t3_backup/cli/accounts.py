"""Go through the accounts of a store, as the reading commands do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from t3_backup.errors import StoreError
from t3_backup.output.console import Console
from t3_backup.restore import pending
from t3_backup.restore.pending import PendingRestore
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.store import Store


def pending_restores(store: Store, user: str | None, out: Console) -> dict[str, PendingRestore]:
    """Those that have not ended, by user; of `user` alone, where one is named. Each is said."""
    found = {restore.user: restore for restore in pending.find_pending(store) if user in (None, restore.user)}
    for restore in found.values():
        out.warn(restore.text)
    return found


def account_entry(
    store: Store, account_dir: AccountDir, snapshots: list[dict[str, Any]], restores: Mapping[str, PendingRestore]
) -> dict[str, Any]:
    """An account as the interface has it."""
    leftovers = [str(store.path / name) for name in store.aside(account_dir.user) + store.leftovers(account_dir.user)]
    restore = restores[account_dir.user].as_json() if account_dir.user in restores else None
    return {
        "user": account_dir.user,
        "snapshots": snapshots,
        "strays": account_dir.strays(),
        "leftovers": leftovers,
        "restore": restore,
    }


class AccountDirs:
    """The shelf of `user`, or all of them, each open while it is looked at. One of many that can't be is said, and counted."""

    def __init__(self, store: Store, user: str | None, out: Console) -> None:
        self._store = store
        self._user = user
        self._out = out
        self.refused = 0

    def __iter__(self) -> Iterator[AccountDir]:
        for user in [self._user] if self._user is not None else self._store.users():
            try:
                account_dir = self._store.account_dir(user)
                if account_dir is None and self._user is None:
                    continue  # that of a user without a database, which a run makes and removes again
                if account_dir is None:
                    raise StoreError(f"no snapshots of {user} in {self._store.path}")
            except StoreError as error:
                if self._user is not None:
                    raise
                self._out.warn(str(error))
                self.refused += 1
                continue
            with account_dir:
                yield account_dir
