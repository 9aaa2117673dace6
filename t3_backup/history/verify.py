"""Prove sealed snapshots again.

Root compares size and SHA-256; SQLite's checks and the census run as the unprivileged owner.
Changes nothing in the store: the file is opened read-only and immutable, so a store on a read-only
file system can be proven too.
"""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from typing import Literal

from t3_backup.accounts import Account
from t3_backup.errors import (
    Cancelled,
    Failure,
    NoRoom,
    ProofFailed,
    SystemdUnanswered,
    TryLater,
    Upgraded,
    WorkerLost,
    explain,
)
from t3_backup.history import chain, page_hashes
from t3_backup.history.chain_reader import ChainReader, ChainReaders
from t3_backup.store import archives, faults
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.companion import Companion
from t3_backup.store.content import hash_content
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.archive import InspectArchive
from t3_backup.worker.proof import find_reader, prove_file

_MOST_REASONS = 5
Outcome = Literal["verified", "failed", "unchecked"]

# The file is not there or is another kind of thing, or the disk has lost what was in it.
_SAYS_OF_BYTES = frozenset(
    (
        errno.ENOENT,
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EIO,
        errno.EBADMSG,
        errno.EUCLEAN,
        errno.EILSEQ,
        errno.ENODATA,
    )
)


@dataclass(frozen=True)
class Finding:
    """What proving sealed bytes found; nothing: they are what was sealed.

    Where both are there, what has `failed` counts.
    """

    failed: tuple[str, ...] = ()  # how they are not what was sealed
    unchecked: tuple[str, ...] = ()  # why that could not be told

    def __add__(self, other: Finding) -> Finding:
        """Join what was found of two parts of a snapshot."""
        return Finding(self.failed + other.failed, self.unchecked + other.unchecked)

    @property
    def outcome(self) -> Outcome:
        """What it comes to."""
        if self.failed:
            return "failed"
        return "unchecked" if self.unchecked else "verified"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it has not verified; what has failed comes first."""
        return self.failed + self.unchecked

    def of_database(self, image: StoredDatabase) -> Finding:
        """Return the same, which says what database it is about, where that is not the live one."""
        if image.record.live:
            return self
        failed, unchecked = (
            tuple(f"{image.file}: {one}" for one in reasons)
            for reasons in (self.failed, self.unchecked)
        )
        return Finding(failed, unchecked)


@dataclass(frozen=True)
class VerifyResult:
    """What proving one snapshot again found."""

    snapshot: Manifest
    finding: Finding = Finding()
    remarks: tuple[str, ...] = ()  # what is wrong beside it, and takes nothing from it
    broken_base: str = ""  # name of the snapshot at whose image it breaks, where it is not its own

    @property
    def outcome(self) -> Outcome:
        """What it comes to."""
        return self.finding.outcome

    @property
    def reason(self) -> str:
        """Why it has not verified, in one text; empty: it has."""
        if self.broken_base:
            return faults.hangs_on(self.broken_base)
        return "; ".join(self.finding.reasons[:_MOST_REASONS])


def require_sound(name: str, found: Finding, what: str) -> None:
    """Raise Failure where the snapshot or image `name` can't be `what`, such as "put back".

    It is ProofFailed where it is not what was sealed.
    """
    why = "; ".join(found.reasons[:_MOST_REASONS])
    if found.outcome == "failed":
        raise ProofFailed(f"{name} does not verify and is not {what}: {why}", why)
    if found.outcome == "unchecked":
        raise Failure(f"{name} could not be checked and is not {what}: {why}")


def open_image(
    account_dir: AccountDir,
    listing: Listing,
    image: StoredDatabase,
    limits: Limits,
    stopping: threading.Event,
    folder: int = -1,
) -> int:
    """Open the bytes of an image as `chain.open_data` does, to prove them.

    Raises ProofFailed where what is there can't be what was sealed.
    """
    try:
        return chain.open_data(account_dir, listing, image, limits, stopping, folder)
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        if judge_error(error).failed:
            why = explain(error)
            raise ProofFailed(f"{image.name} does not verify: {why}", why) from error
        raise


def judge_error(error: Failure | OSError) -> Finding:
    """Tell what an error says of the bytes that were to be proven.

    What stands in the way of a proof (no room, no time, a worker that is lost, a right that is
    missing) says nothing of them.
    """
    if isinstance(error, OSError):
        decided = error.errno in _SAYS_OF_BYTES
    else:
        decided = not isinstance(
            error, NoRoom | TryLater | WorkerLost | SystemdUnanswered | Upgraded
        )
    return Finding(failed=(explain(error),)) if decided else Finding(unchecked=(explain(error),))


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
    found, remarks = Finding(), list[str]()
    for image in snapshot.images:
        reader = None if readers is None else readers.of(image.file)
        found += _verify_image(account_dir, listing, image, limits, stopping, reader)
        remarks.append(page_hashes.find_problem(account_dir, listing, image))
    return VerifyResult(snapshot, found, tuple(filter(None, remarks)))


def _verify_image(
    account_dir: AccountDir,
    listing: Listing,
    image: StoredDatabase,
    limits: Limits,
    stopping: threading.Event,
    reader: ChainReader | None,
) -> Finding:
    try:
        if reader is not None:
            fd = reader.open_data(listing, image)
        else:
            fd = chain.open_data(account_dir, listing, image, limits, stopping)
    except Cancelled:
        raise
    except OSError as error:
        found = judge_error(error)
        what = (f"cannot be opened: {error.strerror}",)
        return (Finding(what) if found.failed else Finding((), what)).of_database(image)
    except Failure as failure:
        return judge_error(failure).of_database(image)
    try:
        return verify_bytes(fd, image, limits, stopping).of_database(image)
    finally:
        os.close(fd)


def verify_bytes(
    fd: int, image: StoredDatabase, limits: Limits, stopping: threading.Event
) -> Finding:
    """Prove bytes that are in the open file `fd` already. Raises Cancelled."""
    try:
        return _prove_bytes(fd, image, limits, stopping)
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        return judge_error(error)
    except (MemoryError, RuntimeError) as error:  # no memory, or no thread, is to be had
        return Finding(unchecked=(str(error) or "out of memory",))


def verify_archive(
    account_dir: AccountDir, companion: Companion, limits: Limits, stopping: threading.Event
) -> Finding:
    """Prove an archive that snapshots name. Raises Cancelled."""
    what = "the archive of what was beside it"
    try:
        fd = archives.open_archive(account_dir, companion)
    except OSError as error:
        return _of_archive(judge_error(error), f"{what} cannot be opened: {error.strerror}")
    try:
        content = hash_content(fd)
        if (content.bytes, content.sha256) != (companion.bytes, companion.sha256):
            found = f"{content.bytes} bytes and SHA-256 {content.sha256}"
            return Finding(failed=(f"{what} has {found}, another was sealed",))
        reader = find_reader(account_dir.user)
        problem = find_archive_problem(reader, fd, companion, limits, stopping)
        return Finding(failed=(problem,)) if problem else Finding()
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        return _of_archive(judge_error(error), f"{what}: {explain(error)}")
    finally:
        os.close(fd)


def _of_archive(found: Finding, text: str) -> Finding:
    return Finding(failed=(text,)) if found.failed else Finding(unchecked=(text,))


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


def _prove_bytes(
    fd: int, image: StoredDatabase, limits: Limits, stopping: threading.Event
) -> Finding:
    if image.record.verdict == "damaged":
        content, found = hash_content(fd), Finding()
    else:
        try:
            reader = find_reader(image.snapshot.user)
            content, proven = prove_file(reader, fd, limits, stopping)
            # SQLite's word of one that it could not judge is another by every version.
            vague = image.record.verdict == "unproven"
            known_only = vague or bool(proven.unjudged)
            differences = image.record.census.differences(proven.census, known_only=known_only)
            found = Finding(failed=(*(() if vague else proven.problems), *differences))
        except Cancelled:
            raise
        except (Failure, OSError) as error:
            # What was changed may be no database any more: then the hash is what tells.
            content, found = hash_content(fd), judge_error(error)
    if content.bytes != image.bytes:
        return Finding(failed=(f"{content.bytes} bytes, {image.bytes} were sealed",))
    if content.sha256 != image.sha256:
        return Finding(failed=(f"SHA-256 {content.sha256}, {image.sha256} was sealed",))
    return found
