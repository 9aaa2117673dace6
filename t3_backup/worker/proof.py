"""Prove a file: root hashes it while workers check it as its owner."""

from __future__ import annotations

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
from t3_backup.errors import Failure, WorkerLost
from t3_backup.store.content import Content, hash_content, read_page_size
from t3_backup.worker import client
from t3_backup.worker.client import Worker
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.proof import CheckIntegrity, Proven
from t3_backup.worker.supervisor import Listener

_SHARED_BYTES = 64 << 20  # a smaller file is proven before a second worker would have started


def prove_file(
    account: Account,
    fd: int,
    limits: Limits,
    stopping: threading.Event,
    listen: Listener = lambda _: None,
    *,
    pages: bool = False,
    waiting: Worker[Proven] | None = None,
) -> tuple[Content, Proven]:
    """Hash `fd` (and its `pages`) beside the workers that check it.

    Nobody writes it any more. A large file is proven by two workers, each a share, where there is a
    second processor; one that is `waiting` for it takes the first. Raises as `client.ask` does.
    """
    shares = 2 if os.fstat(fd).st_size >= _SHARED_BYTES and len(os.sched_getaffinity(0)) > 1 else 1

    def check(share: int) -> Proven:
        operation = CheckIntegrity(share, shares)
        if waiting is None or share > 0:
            return client.ask(account, operation, limits, stopping, listen, file=fd)
        waiting.hand_over(operation, limits, fd)
        return waiting.answer(stopping, listen)

    with ThreadPoolExecutor(1 + shares, thread_name_prefix="prove") as pool:
        hashing = pool.submit(hash_content, fd, read_page_size(fd) if pages else 0)
        proofs = list(pool.map(check, range(shares)))
        return hashing.result(), _merge_proofs(proofs)


def _merge_proofs(proofs: Sequence[Proven]) -> Proven:
    """Make one proof of its shares.

    Raises WorkerLost where they don't speak of the same database.
    """
    first = proofs[0]
    if any(proof.census != first.census for proof in proofs):
        raise WorkerLost("the workers that proved the copy have seen different databases")
    problems = dict.fromkeys(problem for proof in proofs for problem in proof.problems)
    return replace(first, problems=tuple(problems), seconds=max(proof.seconds for proof in proofs))


def start_prover(account: Account, limits: Limits) -> AbstractContextManager[Worker[Proven] | None]:
    """Start the worker that will prove a file, while the file is written; none on one processor.

    Most of what the proof of a small file costs is the worker's start.
    """
    if len(os.sched_getaffinity(0)) == 1:
        return nullcontext()
    return Worker(account, CheckIntegrity(), limits, waits=True)


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
