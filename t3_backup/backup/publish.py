"""Publish a new, proven snapshot.

What earlier ones have already is not kept twice, and what can be shared is shared.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from t3_backup.errors import Failure, explain
from t3_backup.history import page_hashes, reflink
from t3_backup.history.page_hashes import PageHashes
from t3_backup.store.account_dir import AccountDir, NameAs
from t3_backup.store.content import Content, hash_on_disk, read_page_size
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.store.names import DATA, PAGES
from t3_backup.store.staged_file import StagedFile
from t3_backup.text import quote


class SettledFile(NamedTuple):
    """A new file that nobody can write to any more, and what is in it."""

    file: StagedFile
    content: Content


@dataclass(frozen=True)
class Published:
    """What was published, and the account's folder since then."""

    snapshot: Manifest  # the new one, or the newest of those before
    listing: Listing
    unchanged: bool = False  # it is the newest of those before, which holds the same
    warnings: tuple[str, ...] = ()


def publish_snapshot(
    account_dir: AccountDir,
    settled: Mapping[str, SettledFile],
    snapshot: Manifest,
    listing: Listing,
    *,
    share: bool = False,
    unsound: Container[str] = (),
) -> Published:
    """Publish settled files, by database, as a snapshot of an account.

    They are those of `snapshot`, and `listing` is of the account's folder. What the newest image of
    a database holds already is kept once: where there is nothing new to say of any, the newest
    snapshot stands for this one, too, unless it is one of the `unsound`, by name; else it gets a
    second name. With `share`, what is new is published as a file that shares its extents. Raises
    OSError.
    """
    before = _find_newest(snapshot, listing)
    same = {
        image.file: newest
        for image in snapshot.images
        if (newest := before.get(image.file)) is not None
        and newest.sha256 == image.sha256
        and listing.is_plain(newest)
    }
    warnings: list[str] = []
    for file, newest in same.items():
        warnings += _replace_if_lost(account_dir, settled[file], newest, listing)
        listing = listing.with_form(newest, "plain")
    standing = _find_standing(snapshot, same, unsound)
    with contextlib.ExitStack() as held:
        if standing is None:
            names: dict[str, NameAs] = {}
            for image in snapshot.images:
                if newest := same.get(image.file):
                    names[image.file] = partial(account_dir.link_data, newest)
                    continue
                whole = settled[image.file].file
                if share and (older := before.get(image.file)) is not None:
                    shared, why = _share(
                        account_dir, held, settled[image.file], listing, image, older
                    )
                    whole = shared or whole
                    warnings += why
                names[image.file] = whole.name_as
            account_dir.publish_snapshot(snapshot, names)
            listing = listing.with_snapshot(snapshot)
    kept = standing or snapshot
    for image in kept.images:
        listing = _keep_page_hashes(account_dir, listing, image, settled[image.file])
    return Published(kept, listing, standing is not None, tuple(warnings))


def _find_newest(snapshot: Manifest, listing: Listing) -> dict[str, StoredDatabase]:
    """The newest image of each database of a snapshot that is like it.

    After a damaged one lies what VACUUM made of it, whose bytes are never a copy's.
    """
    vacuumed = {one.file: one.method == "vacuum" for one in snapshot.databases}
    return {
        image.file: image
        for image in reversed(listing.images)
        if vacuumed.get(image.file) == (image.record.method == "vacuum")
    }


def _find_standing(
    snapshot: Manifest, same: Mapping[str, StoredDatabase], unsound: Container[str]
) -> Manifest | None:
    """The newest snapshot, where a new one would say nothing that its manifest does not."""
    newest = same.get(snapshot.live.file)
    if (
        newest is None
        or newest.snapshot.name in unsound
        or any(image.snapshot.name != newest.snapshot.name for image in same.values())
    ):
        return None
    stands = newest.snapshot
    alike = all(
        getattr(stands, key) == getattr(snapshot, key)
        for key in ("verdict", "companion", "missing")
    )
    files = [{one.file for one in manifest.databases} for manifest in (snapshot, stands)]
    whole = len(same) == len(snapshot.databases) and files[0] == files[1]
    unlabelled = snapshot.label is None is stands.label
    return (
        stands
        if alike and whole and unlabelled and stands.live.file == snapshot.live.file
        else None
    )


def _share(
    account_dir: AccountDir,
    held: contextlib.ExitStack,
    settled: SettledFile,
    listing: Listing,
    image: StoredDatabase,
    older: StoredDatabase,
) -> tuple[StagedFile | None, list[str]]:
    """A file that shares extents with an older image; None, and why, where there is none."""
    try:
        shared = held.enter_context(account_dir.stage_file())
        page_size = read_page_size(settled.file.reader)
        if reflink.write_shared(
            account_dir, shared, settled.file, settled.content, page_size, listing, older
        ):
            return shared, []
    except (Failure, OSError) as error:  # what is there is proven, and only takes more room
        what = f"{image.name} shares nothing with {older.name}"
        return None, [f"{account_dir.user}: {what}: {explain(error)}"]
    return None, []


def _keep_page_hashes(
    account_dir: AccountDir, listing: Listing, image: StoredDatabase, settled: SettledFile
) -> Listing:
    """Keep the page hashes, and return the new listing.

    They are a hint: without it, pages are compared.
    """
    content, page_size = settled.content, read_page_size(settled.file.reader)
    if not page_size or not content.page_hashes:
        return listing
    name = image.name + PAGES
    if name in listing.names and page_hashes.read_page_hashes(account_dir, image) is not None:
        return listing
    try:
        page_hashes.write_page_hashes(
            account_dir, image, PageHashes(content.sha256, page_size, content.page_hashes)
        )
    except OSError:
        return listing
    return listing.with_file(name)


def _replace_if_lost(
    account_dir: AccountDir, settled: SettledFile, newest: StoredDatabase, listing: Listing
) -> list[str]:
    """Check that the disk holds of the newest what was sealed.

    If not, the new file takes its place, with a warning. All other snapshots need these bytes, and
    nothing will read them for days.
    """
    content = settled.content
    try:
        fd = account_dir.open_plain_data(newest)
        try:
            found = hash_on_disk(fd)
        finally:
            os.close(fd)
    except OSError:  # its file may be gone: without the live image alone it would be no snapshot
        found = Content(0, "")
    if (found.bytes, found.sha256) == (content.bytes, content.sha256):
        return []
    account_dir.replace_data(newest, settled.file, DATA)
    for other in listing.images_of(newest.file):  # whose data was the same file
        if other.sha256 == newest.sha256 and other.name != newest.name and listing.is_plain(other):
            account_dir.replace_data_by_link(newest, other)
    was = f"{account_dir.user}: {newest.name} no longer matched its checksum"
    verify = f"t3-backup-state verify {quote(account_dir.user)}"
    mend = f"next: {verify}, since the disk may have lost more"
    return [f"{was}, and was replaced by a new copy of the same contents; {mend}"]
