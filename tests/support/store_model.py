"""What a store must still hold, whatever was done to it: a model of every snapshot that was sealed."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from demo.users import User
from support.account_folders import GENEROUS
from support.host import Host
from t3_backup.errors import Failure
from t3_backup.history import chain
from t3_backup.history.retention import Policy, decide_retention
from t3_backup.settings import load
from t3_backup.store import archives
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store


class StoreModel:
    """The snapshots of some accounts, as they were sealed.

    `check` holds the store against it, and takes in what is new. It reads as root, and by itself: no
    word of the command is believed.
    """

    def __init__(self, host: Host, users: Iterable[User]) -> None:
        self._host, self._users = host, tuple(user.name for user in users)
        self.known: dict[tuple[str, str], Manifest] = {}
        self.sealed = 0  # how many there ever were
        self.gone = 0  # of these, how many retention let go

    def snapshots(self, user: str) -> list[Manifest]:
        """Those of an account, newest first."""
        found = [one for (owner, _), one in self.known.items() if owner == user]
        return sorted(found, key=lambda one: one.sequence, reverse=True)

    def hashes(self, user: str) -> set[str]:
        """The SHA-256 of each image of an account's snapshots."""
        return {image.sha256 for one in self.snapshots(user) for image in one.images}

    def check(
        self, what: str, *, freed: bool = False, at_once: bool = False, keep: int | None = None
    ) -> None:
        """What was sealed is there, byte for byte, unless retention lets it go; `what` was done.

        `freed`: among other things, marks were taken away meanwhile by which snapshots stay.
        `at_once`: by two commands, so that what is new may have come after what went.
        `keep`: how many the policy kept, where it was not that of the settings.
        """
        try:
            with Store.open(self._host.store) as store:
                for user in self._users:
                    account_dir = store.account_dir(user)
                    if account_dir is None:
                        assert not self.snapshots(user), f"{what}: the folder of {user} is gone"
                        continue
                    with account_dir:
                        listing = account_dir.read_listing()
                        self._check_account(
                            what, user, listing, freed=freed, at_once=at_once, keep=keep
                        )
                        lost = account_dir.read_catalog().lost(listing)
                        assert lost == (), f"{what}: the catalog of {user} misses {lost}"
                        _check_content(account_dir, listing)
        except Failure as failure:
            raise AssertionError(f"{what}: {failure}") from failure

    def _check_account(
        self,
        what: str,
        user: str,
        listing: Listing,
        *,
        freed: bool,
        at_once: bool,
        keep: int | None,
    ) -> None:
        assert listing.strays == (), f"{what}: {user} has {listing.strays}"
        there = {one.name: one for one in listing.snapshots}
        known = {one.name: one for one in self.snapshots(user)}
        for name in known.keys() & there.keys():
            assert _sealed_part(known[name]) == _sealed_part(there[name]), f"{what}: {user} {name}"
        lost = known.keys() - there.keys()
        states = [known | there, *([known] if at_once else [])]
        may_go: set[str] = set()
        for state in states:
            judged = list(state.values())
            if freed:
                judged = [replace(one, pinned_at=None, accepted_at=one.taken_at) for one in judged]
            decisions = decide_retention(judged, self._policy(keep))
            may_go |= {one.snapshot.name for one in decisions if not one.keep}
        assert lost <= may_go, f"{what}: {user} has lost {sorted(lost - may_go)}"
        for name in lost:
            del self.known[user, name]
        self.gone += len(lost)
        self.sealed += len(there.keys() - known.keys())
        self.known |= {(user, name): one for name, one in there.items()}

    def _policy(self, keep: int | None) -> Policy:
        policy = Policy.of(load({}, self._host.env(), Path("/dev/null")))
        return policy if keep is None else replace(policy, keep=keep)


def _sealed_part(snapshot: Manifest) -> Manifest:
    """What nothing may change once it is sealed: all but the marks that people and runs make."""
    databases = tuple(replace(one, stays_plain=False) for one in snapshot.databases)
    return replace(
        snapshot, accepted_at=None, pinned_at=None, restored_since=None, databases=databases
    )


def _check_content(account_dir: AccountDir, listing: Listing) -> None:
    """Each image and each archive is what was sealed, however it is kept."""
    for image in listing.images:
        fd = chain.open_data(account_dir, listing, image, GENEROUS, threading.Event())
        with open(fd, "rb") as file:
            assert hash_content(file.fileno()).sha256 == image.sha256, image.name
    for companion in {one.companion for one in listing.snapshots if one.companion}:
        with open(archives.open_archive(account_dir, companion), "rb") as file:
            assert hash_content(file.fileno()).sha256 == companion.sha256, companion
