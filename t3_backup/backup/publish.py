"""Publish a new, proven snapshot.

What the newest one has already is not kept twice, and what can be shared is shared.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from t3_backup.errors import Failure, explain
from t3_backup.history import page_hashes, reflink
from t3_backup.history.page_hashes import PageHashes
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, hash_on_disk, read_page_size
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import DATA, PAGES
from t3_backup.store.staged_file import StagedFile


@dataclass(frozen=True)
class Published:
    """What was published, and the account's folder since then."""

    snapshot: Manifest  # the new one, or the newest of those before
    listing: Listing
    unchanged: bool = False  # it is the newest of those before, which holds the same
    warnings: tuple[str, ...] = ()


def publish_snapshot(
    account_dir: AccountDir,
    staged_file: StagedFile,
    content: Content,
    snapshot: Manifest,
    listing: Listing,
    *,
    share: bool = False,
) -> Published:
    """Publish a settled file as a snapshot of an account.

    Its `content` is that of `snapshot`, and `listing` is of the account's folder. What the newest
    of those before holds already is kept once: where there is nothing new to say of it, it stands
    for this one, too; else it gets a second name. With `share`, what is new is published as a file
    that shares its extents. Raises OSError.
    """
    page_size = read_page_size(staged_file.reader)
    # After a damaged one lies what VACUUM made of it, whose bytes are never a copy's.
    newest = next(
        (
            one
            for one in listing.snapshots
            if (one.method == "vacuum") == (snapshot.method == "vacuum")
        ),
        None,
    )
    if newest is not None and newest.sha256 == content.sha256 and listing.is_plain(newest):
        healed = _replace_if_lost(account_dir, staged_file, content, newest, listing)
        unchanged = _says_nothing_new(snapshot, newest)
        kept = newest if unchanged else snapshot
        if not unchanged:
            account_dir.publish_link(newest, snapshot)
            listing = listing.with_snapshot(snapshot)
        listing = _keep_page_hashes(account_dir, listing, kept, content, page_size)
        return Published(kept, listing, unchanged, healed)
    warnings: tuple[str, ...] = ()
    with contextlib.ExitStack() as held:
        whole = staged_file
        if share and newest is not None:
            try:
                shared = held.enter_context(account_dir.stage_file())
                if reflink.write_shared(
                    account_dir, shared, staged_file, content, page_size, listing, newest
                ):
                    whole = shared
            except (Failure, OSError) as error:  # what is there is proven, and only takes more room
                what = f"{snapshot.name} shares nothing with {newest.name}"
                warnings = (f"{account_dir.user}: {what}: {explain(error)}",)
        account_dir.publish_file(whole, snapshot)
    listing = _keep_page_hashes(
        account_dir, listing.with_snapshot(snapshot), snapshot, content, page_size
    )
    return Published(snapshot, listing, warnings=warnings)


def _keep_page_hashes(
    account_dir: AccountDir, listing: Listing, snapshot: Manifest, content: Content, page_size: int
) -> Listing:
    """Keep the page hashes, and return the new listing.

    They are a hint: without it, pages are compared.
    """
    if not page_size or not content.page_hashes:
        return listing
    name = snapshot.name + PAGES
    if name in listing.names and page_hashes.read_page_hashes(account_dir, snapshot) is not None:
        return listing
    try:
        page_hashes.write_page_hashes(
            account_dir, snapshot, PageHashes(content.sha256, page_size, content.page_hashes)
        )
    except OSError:
        return listing
    return listing.with_file(name)


def _says_nothing_new(snapshot: Manifest, newest: Manifest) -> bool:
    """Tell whether a manifest of the new one would say nothing that the newest's does not."""
    return snapshot.label is None is newest.label and (snapshot.verdict, snapshot.companion) == (
        newest.verdict,
        newest.companion,
    )


def _replace_if_lost(
    account_dir: AccountDir,
    staged_file: StagedFile,
    content: Content,
    newest: Manifest,
    listing: Listing,
) -> tuple[str, ...]:
    """Check that the disk holds of the newest what was sealed.

    If not, the new file takes its place, with a warning. All other snapshots need these bytes, and
    nothing will read them for days.
    """
    fd = account_dir.open_plain_data(newest)
    try:
        found = hash_on_disk(fd)
    except OSError:
        found = Content(0, "")
    finally:
        os.close(fd)
    if (found.bytes, found.sha256) == (content.bytes, content.sha256):
        return ()
    account_dir.replace_data(newest, staged_file, DATA)
    for other in listing.snapshots:  # whose data was the same file
        if other.sha256 == newest.sha256 and other.name != newest.name and listing.is_plain(other):
            account_dir.replace_data_by_link(newest, other)
    was = f"{account_dir.user}: {newest.name} no longer matched its checksum"
    return (f"{was}, and was replaced by a new copy of the same contents",)
