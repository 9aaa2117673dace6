"""Prove sealed snapshots again: size and SHA-256 by root, SQLite's checks and the census as the unprivileged owner.

Changes nothing in the store: the file is opened read-only and immutable, so a store on a read-only file system can be
proven too.
"""

from __future__ import annotations

import os
import pwd
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from t3_backup import accounts, owner
from t3_backup.accounts import Account
from t3_backup.blank import Content, hash_content
from t3_backup.errors import Cancelled, Failure, WorkerLost, explain
from t3_backup.manifest import Manifest
from t3_backup.protocol import Proven
from t3_backup.shelf import Shelf
from t3_backup.watch import Limits, Listener

_SHARED_BYTES = 64 << 20  # a smaller file is proven before a second worker would have started


@dataclass(frozen=True)
class Check:
    """What proving one snapshot again found; no reasons: it is what its manifest says."""

    snapshot: Manifest
    reasons: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """True where it proved."""
        return not self.reasons


def verify(shelf: Shelf, snapshot: Manifest, limits: Limits, stopping: threading.Event) -> Check:
    """Prove `snapshot` again. A damaged one is evidence: it proves when its bytes are the ones that were sealed.

    Raises Cancelled once `stopping` is set.
    """
    try:
        fd = shelf.open_data(snapshot)
    except OSError as error:
        return Check(snapshot, (f"cannot be opened: {error.strerror}",))
    try:
        return Check(snapshot, tuple(_reasons(fd, snapshot, limits, stopping)))
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        return Check(snapshot, (explain(error),))
    finally:
        os.close(fd)


def examine(
    account: Account, fd: int, limits: Limits, stopping: threading.Event, listen: Listener = lambda _: None
) -> tuple[Content, Proven]:
    """What is in the file `fd`, which nobody writes any more: root hashes it beside the workers that prove it.

    A large file is proven by two workers, each a share, where there is a second processor. Raises as `owner.prove` does.
    """
    shares = 2 if os.fstat(fd).st_size >= _SHARED_BYTES and len(os.sched_getaffinity(0)) > 1 else 1

    def prove(share: int) -> Proven:
        return owner.prove(account, fd, limits, stopping, listen, share=share, shares=shares)

    with ThreadPoolExecutor(1 + shares, thread_name_prefix="examine") as pool:
        hashing = pool.submit(hash_content, fd)
        proofs = list(pool.map(prove, range(shares)))
        return hashing.result(), _together(proofs)


def _together(proofs: Sequence[Proven]) -> Proven:
    """One proof out of its shares. Raises WorkerLost where they don't speak of the same database."""
    first = proofs[0]
    if any(proof.census != first.census for proof in proofs):
        raise WorkerLost("the workers that proved the copy have seen different databases")
    problems = dict.fromkeys(problem for proof in proofs for problem in proof.problems)
    return replace(first, problems=tuple(problems), seconds=max(proof.seconds for proof in proofs))


def _reasons(fd: int, snapshot: Manifest, limits: Limits, stopping: threading.Event) -> list[str]:
    if snapshot.verdict == "damaged":
        content, found = hash_content(fd), []
    else:
        try:
            content, proven = examine(_reader(snapshot.user), fd, limits, stopping)
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


def _reader(user: str) -> Account:
    """Who reads a snapshot: its owner, or nobody where the owner has left the system. Root never parses one."""
    if os.geteuid() != 0:
        return accounts.own()
    try:
        return accounts.find(user)
    except Failure:
        nobody = pwd.getpwnam("nobody")
        return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid,), Path("/"))
