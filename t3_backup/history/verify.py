"""Prove sealed snapshots again: size and SHA-256 by root, SQLite's checks and the census as the unprivileged owner.

Changes nothing in the store: the file is opened read-only and immutable, so a store on a read-only file system can be
proven too.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace

from t3_backup.accounts import Account
from t3_backup.errors import Cancelled, Failure, explain
from t3_backup.history import chain, page_hashes
from t3_backup.history.chain import Walk
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.manifest import Companion, Manifest
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.archive import InspectArchive
from t3_backup.worker.proof import find_reader, prove_file


@dataclass(frozen=True)
class Check:
    """What proving one snapshot again found; no reasons: it is what its manifest says."""

    snapshot: Manifest
    reasons: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """True where it proved."""
        return not self.reasons

    def and_also(self, problem: str) -> Check:
        """The same, with one more reason where there is one."""
        return replace(self, reasons=(*self.reasons, problem)) if problem else self


def verify_snapshot(
    account_dir: AccountDir, snapshot: Manifest, limits: Limits, stopping: threading.Event, walk: Walk | None = None
) -> Check:
    """Prove `snapshot` again. A damaged one is evidence: it proves when its bytes are the ones that were sealed.

    Who proves one after the other has a `walk` on the shelf. Raises Cancelled once `stopping` is set.
    """
    try:
        fd = walk.open(snapshot) if walk else chain.open_data(account_dir, snapshot, limits, stopping)
    except Cancelled:
        raise
    except OSError as error:
        return Check(snapshot, (f"cannot be opened: {error.strerror}",))
    except Failure as failure:
        return Check(snapshot, (str(failure),))
    try:
        return verify_bytes(fd, snapshot, limits, stopping).and_also(page_hashes.problem(account_dir, snapshot))
    finally:
        os.close(fd)


def verify_bytes(fd: int, snapshot: Manifest, limits: Limits, stopping: threading.Event) -> Check:
    """The same of bytes that are in the open file `fd` already."""
    try:
        return Check(snapshot, tuple(_reasons(fd, snapshot, limits, stopping)))
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        return Check(snapshot, (explain(error),))


def verify_archive(account_dir: AccountDir, companion: Companion, limits: Limits, stopping: threading.Event) -> str:
    """How the archive that snapshots of `shelf` name is not what was sealed; empty: it is. Raises Cancelled."""
    what = "the archive of what was beside it"
    try:
        fd = account_dir.open_archive(companion)
    except OSError as error:
        return f"{what} cannot be opened: {error.strerror}"
    try:
        content = hash_content(fd)
        if (content.bytes, content.sha256) != (companion.bytes, companion.sha256):
            return f"{what} has {content.bytes} bytes and SHA-256 {content.sha256}, another was sealed"
        return archive_problem(find_reader(account_dir.user), fd, companion, limits, stopping)
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        return f"{what}: {explain(error)}"
    finally:
        os.close(fd)


def archive_problem(account: Account, fd: int, companion: Companion, limits: Limits, stopping: threading.Event) -> str:
    """How what a worker finds in the archive `fd` is not what `companion` says; empty: it is. Raises as `client.ask` does."""
    found = client.ask(account, InspectArchive(companion.content_bytes), limits, stopping, file=fd)
    if (found.entries, found.content_bytes) == (companion.entries, companion.content_bytes):
        return ""
    return (
        f"the archive holds {found.content_bytes} bytes in {found.entries} entries, "
        f"{companion.content_bytes} in {companion.entries} were packed"
    )


def _reasons(fd: int, snapshot: Manifest, limits: Limits, stopping: threading.Event) -> list[str]:
    if snapshot.verdict == "damaged":
        content, found = hash_content(fd), []
    else:
        try:
            content, proven = prove_file(find_reader(snapshot.user), fd, limits, stopping)
            found = [*proven.problems, *snapshot.census.differences(proven.census)]
        except Cancelled:
            raise
        except Failure as failure:
            # What was changed may be no database any more: then the hash is what tells.
            content, found = hash_content(fd), [str(failure)]
    if content.bytes != snapshot.bytes:
        return [f"{content.bytes} bytes, {snapshot.bytes} were sealed"]
    if content.sha256 != snapshot.sha256:
        return [f"SHA-256 {content.sha256}, {snapshot.sha256} was sealed"]
    return found
