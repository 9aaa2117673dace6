"""Remove what an interrupted run left in an account's folder.

What somebody else may have put there stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container

from t3_backup.store.account_dir import PARTIAL, AccountDir
from t3_backup.store.archives import remove_unused_archives
from t3_backup.store.listing import Listing
from t3_backup.store.names import DATA, DELTA, MANIFEST, PAGES, parse_name

# between the time in a manifest and its writing lies one copy and one proof
_LONGEST_RUN_S = 2 * 86_400


def remove_leftovers(account_dir: AccountDir, listing: Listing) -> Listing:
    """Remove what an interrupted run left, and return the new listing.

    `listing` was read just now. Raises OSError. That is: partial files, manifests whose data never
    got its name, deltas beside their plain data, and page hashes and archives of no snapshot.
    """
    leftovers = [
        name for name in sorted(listing.names) if _is_leftover(account_dir, name, listing.names)
    ]
    for name in leftovers:
        account_dir.remove_file(name)
    return remove_unused_archives(account_dir, listing.without_files(leftovers))


def _is_leftover(account_dir: AccountDir, name: str, names: Container[str]) -> bool:
    if name.startswith(PARTIAL):
        return True
    stem = os.path.splitext(name)[0]
    if parse_name(stem) is None:
        return False
    plain, delta = stem + DATA in names, stem + DELTA in names
    return (
        (
            name == stem + MANIFEST
            and not plain
            and not delta
            and _is_our_manifest(account_dir, stem)
        )
        or (name == stem + DELTA and plain)
        or (name == stem + PAGES and not plain)
    )


def _is_our_manifest(account_dir: AccountDir, stem: str) -> bool:
    """Tell whether a run left the manifest, and nobody brought it back ahead of its data.

    It was written when its snapshot was taken; or so long ago that whoever brings back a store is
    done.
    """
    try:
        written = account_dir.stat_file(stem + MANIFEST).st_ctime
        old = time.time() - written > _LONGEST_RUN_S
        return (
            abs(written - account_dir.read_manifest(stem).when.timestamp()) < _LONGEST_RUN_S or old
        )
    except (OSError, ValueError):
        return False
