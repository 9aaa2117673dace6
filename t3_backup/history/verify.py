"""Prove sealed snapshots again.

Root compares size and SHA-256; SQLite's checks and the census run as the unprivileged owner.
Changes nothing in the store: the file is opened read-only and immutable, so a store on a read-only
file system can be proven too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from t3_backup.accounts import Account
from t3_backup.errors import Cancelled, Failure, explain
from t3_backup.history import chain, page_hashes
from t3_backup.history.chain_reader import ChainReader, ChainReaders
from t3_backup.store import archives
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.companion import Companion
from t3_backup.store.content import hash_content
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.archive import InspectArchive
from t3_backup.worker.proof import find_reader, prove_file


@dataclass(frozen=True)
class VerifyResult:
    """What proving one snapshot again found; no reasons: it is what its manifest says."""

    snapshot: Manifest
    reasons: tuple[str, ...]

    @property
    def verifies(self) -> bool:
        """Tell whether it proved."""
        return not self.reasons

    def with_problem(self, problem: str) -> VerifyResult:
        """Return the same, with one more reason where there is one."""
        return replace(self, reasons=(*self.reasons, problem)) if problem else self


def verify_snapshot(
    account_dir: AccountDir,
    listing: Listing,
    snapshot: Manifest,
    limits: Limits,
    stopping: threading.Event,
    readers: ChainReaders | None = None,
) -> VerifyResult:
    """Prove `snapshot` again, each of its databases.

    A damaged one is evidence: it proves when its bytes are the ones that were sealed. So does an
    unproven one, whose census is compared as far as it was known. Who proves one after the other
    has `readers` of the account's chains. Raises Cancelled once `stopping` is
    set.
    """
    reasons: list[str] = []
    for image in snapshot.images:
        reader = None if readers is None else readers.of(image.file)
        found = verify_image(account_dir, listing, image, limits, stopping, reader)
        reasons += name_database(image, found)
    return VerifyResult(snapshot, tuple(reasons))


def name_database(image: StoredDatabase, reasons: Sequence[str]) -> list[str]:
    """Return reasons that say which database they are about, where it is not the live one."""
    return list(reasons) if image.record.live else [f"{image.file}: {one}" for one in reasons]


def verify_image(
    account_dir: AccountDir,
    listing: Listing,
    image: StoredDatabase,
    limits: Limits,
    stopping: threading.Event,
    reader: ChainReader | None = None,
) -> tuple[str, ...]:
    """Tell how one image is not what was sealed; empty: it is. Raises as `verify_snapshot` does."""
    try:
        if reader is not None:
            fd = reader.open_data(listing, image)
        else:
            fd = chain.open_data(account_dir, listing, image, limits, stopping)
    except Cancelled:
        raise
    except OSError as error:
        return (f"cannot be opened: {error.strerror}",)
    except Failure as failure:
        return (str(failure),)
    try:
        found = verify_bytes(fd, image, limits, stopping)
        problem = page_hashes.find_problem(account_dir, listing, image)
        return (*found, problem) if problem else found
    finally:
        os.close(fd)


def verify_bytes(
    fd: int, image: StoredDatabase, limits: Limits, stopping: threading.Event
) -> tuple[str, ...]:
    """Prove the same of bytes that are in the open file `fd` already."""
    try:
        return tuple(_find_reasons(fd, image, limits, stopping))
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        return (explain(error),)


def verify_archive(
    account_dir: AccountDir, companion: Companion, limits: Limits, stopping: threading.Event
) -> str:
    """Tell how an archive that snapshots name is not what was sealed; empty: it is.

    Raises Cancelled.
    """
    what = "the archive of what was beside it"
    try:
        fd = archives.open_archive(account_dir, companion)
    except OSError as error:
        return f"{what} cannot be opened: {error.strerror}"
    try:
        content = hash_content(fd)
        if (content.bytes, content.sha256) != (companion.bytes, companion.sha256):
            return (
                f"{what} has {content.bytes} bytes and SHA-256 {content.sha256}, another was sealed"
            )
        return find_archive_problem(find_reader(account_dir.user), fd, companion, limits, stopping)
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        return f"{what}: {explain(error)}"
    finally:
        os.close(fd)


def find_archive_problem(
    account: Account, fd: int, companion: Companion, limits: Limits, stopping: threading.Event
) -> str:
    """Tell how what a worker finds in the archive `fd` is not what `companion` says.

    Empty: it is. Raises as `client.ask` does.
    """
    found = client.ask(account, InspectArchive(companion.content_bytes), limits, stopping, file=fd)
    if (found.entries, found.content_bytes) == (companion.entries, companion.content_bytes):
        return ""
    return (
        f"the archive holds {found.content_bytes} bytes in {found.entries} entries, "
        f"{companion.content_bytes} in {companion.entries} were packed"
    )


def _find_reasons(
    fd: int, image: StoredDatabase, limits: Limits, stopping: threading.Event
) -> list[str]:
    if image.record.verdict == "damaged":
        content, found = hash_content(fd), []
    else:
        try:
            reader = find_reader(image.snapshot.user)
            content, proven = prove_file(reader, fd, limits, stopping)
            # SQLite's word of one that it could not judge is another by every version.
            vague = image.record.verdict == "unproven"
            known_only = vague or bool(proven.unjudged)
            found = image.record.census.differences(proven.census, known_only=known_only)
            found = [*([] if vague else proven.problems), *found]
        except Cancelled:
            raise
        except Failure as failure:
            # What was changed may be no database any more: then the hash is what tells.
            content, found = hash_content(fd), [str(failure)]
    if content.bytes != image.bytes:
        return [f"{content.bytes} bytes, {image.bytes} were sealed"]
    if content.sha256 != image.sha256:
        return [f"SHA-256 {content.sha256}, {image.sha256} was sealed"]
    return found
