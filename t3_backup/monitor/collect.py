"""Collect each account's snapshots, attempts and disk usage.

Only the store and the map are read. No home is looked into, no lock is taken, nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from t3_backup import accounts
from t3_backup.errors import Failure, StoreError, explain
from t3_backup.monitor import attempts
from t3_backup.monitor.attempts import Attempt, Attempts
from t3_backup.restore import pending
from t3_backup.store.catalog import Catalog
from t3_backup.store.faults import Unsound, find_unsound
from t3_backup.store.listing import Listing
from t3_backup.store.losses import find_lost
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.store.store import Store
from t3_backup.system.disk import used_bytes
from t3_backup.t3.login_report import UNKNOWN, LoginReport, read_login
from t3_backup.text import format_size, printable


@dataclass(frozen=True)
class AccountView:
    """One account; if its folder can't be read, it has a `problem`, no snapshots."""

    user: str
    in_map: bool
    snapshots: tuple[Manifest, ...] = ()  # newest first
    attempts: tuple[Attempt, ...] = ()  # the oldest first
    used_bytes: int = 0  # of the store's disk
    problem: str = ""
    lost: tuple[StoredDatabase, ...] = ()  # images whose files are gone, newest first
    catalog: Catalog = field(default_factory=Catalog)  # what is known of its snapshots
    vanished: tuple[str, ...] = ()  # names of snapshots that were sealed, and are not there
    login: LoginReport = UNKNOWN  # what t3-autoupdate says of it
    restore: str = ""  # what there is to be said of a restore that was interrupted

    @cached_property
    def unsound(self) -> Unsound:
        """The snapshots whose last proof failed."""
        return find_unsound(self.snapshots, self.catalog)


@dataclass(frozen=True)
class Overview:
    """All accounts, by name."""

    store: Path
    free_bytes: int
    accounts: tuple[AccountView, ...]
    warnings: tuple[str, ...] = ()  # of the map, the ledger and the disk
    store_problem: str = ""  # why no backup can be made there


def collect_overview(
    store: Store,
    known: accounts.UserMap,
    user: str | None = None,
    listings: Mapping[str, Listing] | None = None,
    logins: Path | None = None,
    reserve: int = 0,
) -> Overview:
    """Collect the accounts of the map and all others with a folder, or `user` alone.

    A folder that `listings` has is not read again; in `logins` is what t3-autoupdate says of
    logins. `reserve` are the bytes that stay free on the store's disk. Raises Failure where `user`
    is unknown.
    """
    warnings = list(known.warnings)
    free = store.free_bytes()
    if free < reserve:
        room = f"{format_size(free)} free, and {format_size(reserve)} stay free (T3_BACKUP_RESERVE)"
        warnings.append(f"{store.path}: {room}: no backup can be made; free some space")
    noted = attempts_of(store, warnings.append)
    users = sorted({*known.users, *store.users(), *store.users_with_catalog()})
    if user is not None:
        users = [user] if user in users else []
    read = listings or {}
    views = [_view(store, name, known, noted.get(name, ()), read.get(name)) for name in users]
    restores = {one.user: one.text for one in pending.find_pending(store) if not one.running}
    there = tuple(
        replace(_with_login(view, logins), restore=restores.get(view.user, ""))
        for view in views
        if view is not None
    )
    if user is not None and not there:
        raise Failure(f"{user} is not in the map, and has no snapshots in {store.path}")
    return Overview(store.path, free, there, tuple(warnings))


def attempts_of(store: Store, warn: Callable[[str], None]) -> Attempts:
    """Read the ledger of attempts; `warn`, and give none, where it can't be read."""
    try:
        return attempts.read(store.fd)
    except (ValueError, OSError) as error:
        why = f"{store.path / attempts.NAME} can't be read: {printable(explain(error))}"
        warn(f"{why}; the next run begins a new one")
        return {}


def _with_login(view: AccountView, logins: Path | None) -> AccountView:
    return view if logins is None else replace(view, login=read_login(logins, view.user))


def _view(
    store: Store,
    user: str,
    known: accounts.UserMap,
    noted: Sequence[Attempt],
    listing: Listing | None,
) -> AccountView | None:
    """Collect one account; None without a line in the map, a folder and what should be there."""
    in_map = user in known.users
    try:
        account_dir = store.account_dir(user)
        if account_dir is None:
            view = AccountView(user, in_map, attempts=tuple(noted))
        else:
            with account_dir:
                listing = listing or account_dir.read_listing()
                used = used_bytes(account_dir.fd)
            view = AccountView(
                user, in_map, listing.snapshots, tuple(noted), used, lost=listing.lost_images
            )
        view = replace(
            view,
            catalog=store.read_catalog(user),
            vanished=find_lost(store, user, None if account_dir is None else listing),
        )
        return view if in_map or account_dir is not None or view.vanished else None
    except (StoreError, OSError) as error:
        return AccountView(user, in_map, attempts=tuple(noted), problem=explain(error))


def users_to_watch(path: Path) -> accounts.UserMap:
    """Tell whose backups to watch: the map's for root, one's own for others.

    Raises UsageError and Failure.
    """
    if os.geteuid() == 0:
        return accounts.read_map(path)
    return accounts.UserMap((accounts.own().user,), ())
