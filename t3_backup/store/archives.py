"""Keep the archives of the files beside a database.

There is one file for each content, shared by all snapshots that name it.
"""

from __future__ import annotations

import os

from t3_backup.store.account_dir import AccountDir
from t3_backup.store.companion import Companion, archive_name, with_own_name
from t3_backup.store.content import hash_content
from t3_backup.store.listing import Listing
from t3_backup.store.staged_file import StagedFile


def has_archive(account_dir: AccountDir, companion: Companion) -> bool:
    """Tell whether an archive is there, in its whole length. Raises OSError."""
    try:
        return account_dir.stat_file(archive_name(companion)).st_size == companion.bytes
    except FileNotFoundError:
        return False


def open_archive(account_dir: AccountDir, companion: Companion) -> int:
    """Open an archive, read-only. Raises OSError."""
    return account_dir.open_file(archive_name(companion))


def keep_archive(account_dir: AccountDir, staged_file: StagedFile, companion: Companion) -> None:
    """Name a settled file by its content, durably.

    One that has the name already stays, if it has the content, too.
    """
    name = archive_name(companion)
    try:
        staged_file.name_as(name)
    except FileExistsError:
        if is_whole_archive(account_dir, companion):
            return
        account_dir.replace_file(staged_file.name_as, name)
    account_dir.sync()


def give_own_name(account_dir: AccountDir, companion: Companion) -> Companion:
    """Let an archive have the name that format 3 gives it, and return it so. Raises OSError.

    An earlier version of this tool, to which somebody goes back, removes those of format 2 that no
    manifest names which it can read.
    """
    own = with_own_name(companion)
    if own != companion and not has_archive(account_dir, own):
        old, new = archive_name(companion), archive_name(own)
        fd = account_dir.fd
        account_dir.replace_file(
            lambda name: os.link(old, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False),
            new,
        )
        account_dir.sync()
    return own


def is_whole_archive(account_dir: AccountDir, companion: Companion) -> bool:
    """Tell whether an archive is what was sealed, byte for byte. Raises OSError."""
    fd = open_archive(account_dir, companion)
    try:
        content = hash_content(fd)
    finally:
        os.close(fd)
    return (content.bytes, content.sha256) == (companion.bytes, companion.sha256)


def remove_unused_archives(account_dir: AccountDir, listing: Listing) -> Listing:
    """Remove the archives that no snapshot names, and return the new listing.

    Raises OSError. The folder is read again before anything goes. What has come since `listing` may
    be a snapshot's that has no name yet: it stays.
    """
    unused = listing.unused_archives()
    if not unused:
        return listing
    listing = account_dir.read_listing()
    still = set(listing.unused_archives())
    for name in unused:
        if name in still:
            account_dir.remove_file(name)
            listing = listing.without_files([name])
    return listing
