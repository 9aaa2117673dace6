"""Remove what an interrupted run left in an account's folder, and bring its catalog up to date.

What somebody else may have put there stays; so does what is left of a snapshot that was lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container
from dataclasses import replace
from typing import NamedTuple

from t3_backup.errors import explain
from t3_backup.store import catalog_file
from t3_backup.store.account_dir import PARTIAL, AccountDir
from t3_backup.store.archives import remove_unused_archives
from t3_backup.store.catalog import Catalog, explain_loss, find_changes
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import DATA, DELTA, MANIFEST, PAGES, snapshot_of_image

# between the time in a manifest and its writing lies one copy and one proof
_LONGEST_RUN_S = 2 * 86_400


def remove_leftovers(
    account_dir: AccountDir,
    listing: Listing,
    find_needed: Callable[[AccountDir, Listing], set[str]],
) -> Listing:
    """Remove what an interrupted run left, and return the new listing.

    `listing` was read just now. `find_needed` finds the SHA-256s of the images that deltas need.
    Raises OSError. That is: partial files, manifests whose live image never got its name, with the
    images that they name, what is left of a snapshot that was let go, deltas beside their plain
    images, and page hashes and archives of no snapshot.
    """
    catalog = account_dir.read_catalog()
    leftovers = [name for name in sorted(listing.names) if _is_leftover(name, listing.names)]
    unborn = _find_unborn_snapshots(account_dir, listing, catalog)
    unborn += _find_half_removed(listing, catalog)
    if any(listing.has_data(image) for snapshot in unborn for image in snapshot.images):
        needed = find_needed(account_dir, listing)
        # one that was born, and has lost its live image since
        unborn = [one for one in unborn if needed.isdisjoint(i.sha256 for i in one.images)]
    for snapshot in unborn:
        leftovers += _files_of(snapshot, listing)
    for name in dict.fromkeys(leftovers):
        account_dir.remove_file(name)
    gone = {snapshot.name for snapshot in unborn}
    rest = tuple(one for one in listing.snapshots if one.name not in gone)
    listing = replace(listing.without_files(leftovers), snapshots=rest)
    return remove_unused_archives(account_dir, listing)


class CatalogCheck(NamedTuple):
    """What the catalog says of an account's folder."""

    lost: tuple[str, ...]  # names of snapshots that were sealed, and are not there
    problem: str  # why the catalog could not be read or written, for people; may be empty

    def lines(self, user: str) -> list[str]:
        """Say what is not well; nothing where all is."""
        return [text for text in (explain_loss(user, self.lost), self.problem) if text]


def check_catalog(account_dir: AccountDir, listing: Listing) -> CatalogCheck:
    """Take into the catalog what is sound and not known, and find what was lost.

    `listing` is that after `remove_leftovers`, under the store's lock. One that can't be written
    costs nobody a backup.
    """
    catalog = account_dir.read_catalog()
    problem = catalog.problem
    if problem:
        problem += f"; it is kept as {catalog_file.name_of_broken(account_dir.user)}"
    try:
        if problem or find_changes(catalog, listing):
            account_dir.change_catalog(
                lambda known: find_changes(Catalog(known, catalog.problem), listing)
            )
            catalog = account_dir.read_catalog()
    except OSError as error:
        problem = problem or f"the catalog can't be written: {explain(error)}"
    return CatalogCheck(catalog.lost(listing), problem)


def _is_leftover(name: str, names: Container[str]) -> bool:
    if name.startswith(PARTIAL):
        return True
    stem = os.path.splitext(name)[0]
    if snapshot_of_image(stem) is None:
        return False
    plain = stem + DATA in names
    return (name == stem + DELTA and plain) or (name == stem + PAGES and not plain)


def _find_unborn_snapshots(
    account_dir: AccountDir, listing: Listing, catalog: Catalog
) -> list[Manifest]:
    """Find those whose live image has no name, and that nobody knows as sealed."""
    if catalog.problem:  # it may have known them
        return []
    there = {snapshot.name for snapshot in listing.snapshots}
    bare = [
        name
        for name in listing.names
        if name.endswith(MANIFEST) and name.removesuffix(MANIFEST) not in there
    ]
    found = account_dir.read_manifests(bare)
    return [
        snapshot
        for snapshot in found
        if not catalog.is_sealed(snapshot.name) and _is_our_manifest(account_dir, snapshot)
    ]


def _find_half_removed(listing: Listing, catalog: Catalog) -> list[Manifest]:
    """Find those that were let go and of which an image has gone; one that is whole stays."""
    return [
        snapshot
        for snapshot in listing.snapshots
        if (entry := catalog.entries.get(snapshot.name)) is not None
        and entry.state == "removing"
        and not all(map(listing.has_data, snapshot.images))
    ]


def _files_of(snapshot: Manifest, listing: Listing) -> list[str]:
    """List what is there of a snapshot: images first, then the manifest."""
    names = [image.name + end for image in snapshot.images for end in (PAGES, DELTA, DATA)]
    return [name for name in (*names, snapshot.name + MANIFEST) if name in listing.names]


def _is_our_manifest(account_dir: AccountDir, snapshot: Manifest) -> bool:
    """Tell whether a run left the manifest, and nobody brought it back ahead of its data.

    It was written when its snapshot was taken; or so long ago that whoever brings back a store is
    done.
    """
    try:
        written = account_dir.stat_file(snapshot.name + MANIFEST).st_ctime
    except OSError:
        return False
    old = time.time() - written > _LONGEST_RUN_S
    return abs(written - snapshot.when.timestamp()) < _LONGEST_RUN_S or old
