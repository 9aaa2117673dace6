"""Prove a file: root hashes it while workers check it as its owner."""

from __future__ import annotations

import contextlib
import os
import pwd
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.errors import Failure, SourceError, WorkerLost
from t3_backup.store.content import Content, hash_content, read_page_size
from t3_backup.worker import client
from t3_backup.worker.client import Worker
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.proof import (
    CheckDatabases,
    CheckIntegrity,
    ProofOf,
    Proven,
    ProvenAll,
)
from t3_backup.worker.supervisor import Listener

_SHARED_BYTES = 64 << 20  # a smaller file is proven before a second worker would have started


def prove_file(
    account: Account,
    fd: int,
    limits: Limits,
    stopping: threading.Event,
    listen: Listener = lambda _: None,
) -> tuple[Content, Proven]:
    """Hash `fd` beside the workers that check it.

    Nobody writes it any more. A large file is proven by two workers, each a share, where there is a
    second processor. Raises as `client.ask` does.
    """
    shares = _count_shares(os.fstat(fd).st_size)

    def check(share: int) -> Proven:
        operation = CheckIntegrity(share, shares)
        return client.ask(account, operation, limits, stopping, listen, file=fd)

    with ThreadPoolExecutor(1 + shares, thread_name_prefix="prove") as pool:
        hashing = pool.submit(hash_content, fd)
        proofs = list(pool.map(check, range(shares)))
        return hashing.result(), _merge_proofs(proofs)


def prove_files(
    account: Account,
    files: Sequence[int],
    limits: Limits,
    stopping: threading.Event,
    listen: Listener,
    waiting: Worker[ProvenAll] | None,
) -> list[tuple[Content, Proven | SourceError]]:
    """Hash `files` and their pages beside the workers that check them; the same of each.

    They are proven in their order. One that can't be read as a database costs no other its proof,
    and one whose proof does not end costs those before it none: a worker that was lost, or out of
    time, has reported them. A worker that is `waiting` takes the first share of each. Raises as
    `client.ask` does, where not even the first was proven.
    """
    shares = _count_shares(max(os.fstat(fd).st_size for fd in files))

    def check(share: int) -> ProvenAll:
        operation = CheckDatabases(share, shares)
        with contextlib.ExitStack() as held:
            if waiting is None or share > 0:
                worker = held.enter_context(Worker(account, operation, limits, waits=True))
            else:
                worker = waiting
            worker.hand_over(operation, limits, files)
            return worker.answer(stopping, listen)

    def hash_all() -> list[Content]:
        return [hash_content(fd, read_page_size(fd)) for fd in files]

    with ThreadPoolExecutor(1 + shares, thread_name_prefix="prove") as pool:
        hashing = pool.submit(hash_all)
        answers = list(pool.map(check, range(shares)))
        contents = hashing.result()
    if not all(0 < len(answer.proofs) <= len(files) for answer in answers):
        raise WorkerLost("the worker has not proven as many files as there are")
    merged = [_merge(shares) for shares in zip(*(one.proofs for one in answers), strict=False)]
    lost = SourceError("its proof did not end in time, or the worker that proved it was lost")
    merged += [lost] * (len(files) - len(merged))
    return list(zip(contents, merged, strict=True))


def _merge(shares: Sequence[ProofOf]) -> Proven | SourceError:
    """Make one proof of its shares, or say why there is none."""
    proofs = [share.proven for share in shares if share.proven is not None]
    if len(proofs) == len(shares):
        return _merge_proofs(proofs)
    return SourceError(next(share.reason for share in shares if share.proven is None))


def _count_shares(size: int) -> int:
    """Say by how many workers a file of that size is proven, where there are processors."""
    return 2 if size >= _SHARED_BYTES and len(os.sched_getaffinity(0)) > 1 else 1


def _merge_proofs(proofs: Sequence[Proven]) -> Proven:
    """Make one proof of its shares.

    Raises WorkerLost where they don't speak of the same database.
    """
    first = proofs[0]
    if any(proof.census != first.census for proof in proofs):
        raise WorkerLost("the workers that proved the copy have seen different databases")
    problems = dict.fromkeys(problem for proof in proofs for problem in proof.problems)
    return replace(
        first,
        problems=tuple(problems),
        seconds=max(proof.seconds for proof in proofs),
        unjudged="; ".join(dict.fromkeys(proof.unjudged for proof in proofs if proof.unjudged)),
        orphans="; ".join(dict.fromkeys(proof.orphans for proof in proofs if proof.orphans)),
    )


def start_prover(
    account: Account, limits: Limits
) -> AbstractContextManager[Worker[ProvenAll] | None]:
    """Start the worker that will prove files, while they are written; none on one processor.

    Most of what the proof of a small file costs is the worker's start.
    """
    if len(os.sched_getaffinity(0)) == 1:
        return nullcontext()
    return Worker(account, CheckDatabases(), limits, waits=True)


def find_reader(user: str) -> Account:
    """Find who reads a snapshot: its owner, or nobody where that user is gone.

    Root never parses one.
    """
    if os.geteuid() != 0:
        return accounts.own()
    try:
        return accounts.find(user)
    except Failure:
        nobody = pwd.getpwnam("nobody")
        return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid,), Path("/"))
