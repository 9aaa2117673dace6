"""Where the bytes of a new, proven snapshot go: nowhere, if the newest one has them already; else to the shelf, in little room."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from t3_backup.errors import Failure, explain
from t3_backup.history import page_hashes, reflink
from t3_backup.history.page_hashes import PageHashes
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, hash_on_disk, page_size_of
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import DATA
from t3_backup.store.staged_file import StagedFile


@dataclass(frozen=True)
class Published:
    """What came of it."""

    snapshot: Manifest  # the new one, or the newest of those before
    unchanged: bool = False  # it is the newest of those before, which holds the same
    warnings: tuple[str, ...] = ()


def publish_snapshot(
    account_dir: AccountDir,
    staged_file: StagedFile,
    content: Content,
    snapshot: Manifest,
    before: Sequence[Manifest],
    *,
    share: bool = False,
) -> Published:
    """Publish the settled `blank`, whose `content` is `snapshot`'s; `before` are those on the shelf, newest first.

    What the newest of them holds already is not kept twice: where there is nothing new to say of it, it stands for this one, too;
    else it gets a second name. With `share`, what is new is published as a file that shares its extents. Raises OSError.
    """
    page_size = page_size_of(staged_file.reader)
    # After a damaged one lies what VACUUM made of it, whose bytes are never a copy's.
    newest = next((one for one in before if (one.method == "vacuum") == (snapshot.method == "vacuum")), None)
    if newest is not None and newest.sha256 == content.sha256 and account_dir.is_plain(newest):
        healed = _heal(account_dir, staged_file, content, newest, before)
        unchanged = _says_the_same(snapshot, newest)
        kept = newest if unchanged else snapshot
        if not unchanged:
            account_dir.publish_again(newest, snapshot)
        _keep_hashes(account_dir, kept, content, page_size)
        return Published(kept, unchanged, healed)
    warnings: tuple[str, ...] = ()
    with contextlib.ExitStack() as held:
        whole = staged_file
        if share and newest is not None:
            try:
                shared = held.enter_context(account_dir.begin())
                if reflink.share(account_dir, shared, staged_file, content, page_size, newest):
                    whole = shared
            except (Failure, OSError) as error:  # what is there is proven, and only takes more room
                warnings = (f"{account_dir.user}: {snapshot.name} shares nothing with {newest.name}: {explain(error)}",)
        account_dir.publish(whole, snapshot)
    _keep_hashes(account_dir, snapshot, content, page_size)
    return Published(snapshot, warnings=warnings)


def _keep_hashes(account_dir: AccountDir, snapshot: Manifest, content: Content, page_size: int) -> None:
    """A hint: without it, pages are compared."""
    if page_size and content.page_hashes and page_hashes.beside(account_dir, snapshot) is None:
        with contextlib.suppress(OSError):
            page_hashes.keep(account_dir, snapshot, PageHashes(content.sha256, page_size, content.page_hashes))


def _says_the_same(snapshot: Manifest, newest: Manifest) -> bool:
    """Whether a manifest of the new one would tell nothing that the newest's does not."""
    return snapshot.label is None is newest.label and (snapshot.verdict, snapshot.companion) == (newest.verdict, newest.companion)


def _heal(
    account_dir: AccountDir, staged_file: StagedFile, content: Content, newest: Manifest, before: Sequence[Manifest]
) -> tuple[str, ...]:
    """See that the disk holds of the newest what was sealed; if not, what is in `blank` takes its place. A warning, if so.

    All other snapshots hang on these bytes, and nothing will read them for days.
    """
    fd = account_dir.open_data(newest)
    try:
        found = hash_on_disk(fd)
    except OSError:
        found = Content(0, "")
    finally:
        os.close(fd)
    if (found.bytes, found.sha256) == (content.bytes, content.sha256):
        return ()
    account_dir.replace_data(newest, staged_file, DATA)
    for other in before:  # whose data was the same file
        if other.sha256 == newest.sha256 and other.name != newest.name and account_dir.is_plain(other):
            account_dir.name_again(newest, other)
    was = f"{account_dir.user}: {newest.name} was no longer what had been sealed"
    return (f"{was}, and was replaced by the same, new from the database",)
