"""The new files of one snapshot: staged, copied into, settled, hashed and proven.

Nothing has a name yet. What can't be copied, or is not what was copied, costs only itself, unless
it is the live database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from t3_backup.backup import verdict
from t3_backup.backup.limits import limits_until
from t3_backup.backup.order import SnapshotOrder
from t3_backup.backup.publish import SettledFile
from t3_backup.errors import NotTheSame, SourceError, WorkerLost
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, read_database_bytes
from t3_backup.store.manifest import (
    Missing,
)
from t3_backup.store.staged_file import StagedFile
from t3_backup.system.deadline import Deadline
from t3_backup.worker.client import Worker
from t3_backup.worker.operations.backup import Copied, CopiedAll
from t3_backup.worker.operations.proof import Proven, ProvenAll
from t3_backup.worker.proof import prove_files
from t3_backup.worker.sources import Source


@dataclass
class CopiedFiles:
    """New files of one snapshot, by database, what they are to hold, and what is not in them."""

    account_dir: AccountDir
    _held: ExitStack = field(default_factory=ExitStack)
    files: dict[str, StagedFile] = field(default_factory=dict)
    copies: dict[str, Copied] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    live: str = ""
    pin_seconds: float = 0.0

    def stage(self, file: str) -> StagedFile:
        """Make a new file for one database. Raises OSError."""
        self.files[file] = self._held.enter_context(self.account_dir.stage_file())
        return self.files[file]

    def provide(self, source: Source) -> list[int]:
        """Make a new file for each database that was found, instead of those of before."""
        self._held.close()
        self.files.clear()
        self.missing = [Missing(one.file, one.problem) for one in source.databases if one.problem]
        return [self.stage(one.file).writer for one in source.usable]

    def take(self, answer: CopiedAll) -> None:
        """Take in what became of each. Raises WorkerLost for an answer that can't be."""
        if sorted(one.file for one in answer.databases) != sorted(self.files):
            raise WorkerLost("the worker has copied other databases than it found")
        for one in answer.databases:
            if one.copied is None:
                self.missing.append(Missing(one.file, one.reason))
            else:
                self.copies[one.file] = one.copied
        if answer.live not in self.copies:
            raise WorkerLost("the worker has not copied the live database")
        self.live, self.pin_seconds = answer.live, answer.pin_seconds

    def take_one(self, file: str, copied: Copied) -> None:
        """Take in the copy of the only database."""
        self.copies[file], self.live = copied, file

    def close(self) -> None:
        """Forget the files; those that have no name are gone."""
        self._held.close()


@dataclass(frozen=True)
class ProvenFile:
    """One database that was copied and proven."""

    settled: SettledFile
    copied: Copied
    proven: Proven


@contextmanager
def copied_files(account_dir: AccountDir) -> Iterator[CopiedFiles]:
    """Have new files for copies; those that got no name are gone at the end."""
    copied = CopiedFiles(account_dir)
    try:
        yield copied
    finally:
        copied.close()


def settle_and_prove(
    order: SnapshotOrder,
    copied: CopiedFiles,
    deadline: Deadline,
    prover: Worker[ProvenAll] | None,
) -> dict[str, ProvenFile]:
    """End all writing to the files that were copied into, hash them and have them proven.

    A `prover` is a worker that waits for this. What is not what was copied becomes `missing`, but
    for the live one. Raises Failure and OSError; NotTheSame where that isn't what was copied.
    """
    # the live one first: no other may take its time
    names = sorted(copied.copies, key=lambda file: (file != copied.live, file))
    for file in names:
        copied.files[file].settle()
    left = limits_until(order.limits, deadline)
    with ExitStack() as held:
        fds = [copied.files[file].open() for file in names]
        for fd in fds:
            held.callback(os.close, fd)
        proofs = prove_files(order.account, fds, left, order.stopping, order.listen, prover)
        found = {}
        for file, fd, (content, proof) in zip(names, fds, proofs, strict=True):
            try:
                if isinstance(proof, SourceError):
                    raise proof
                if not proof.problems:
                    _check_agreement(content, read_database_bytes(fd), copied.copies[file], proof)
            except (SourceError, NotTheSame) as error:
                if file == copied.live:
                    raise
                copied.missing.append(Missing(file, str(error)))
                continue
            settled = SettledFile(copied.files[file], content)
            found[file] = ProvenFile(settled, copied.copies[file], proof)
        return found


def _check_agreement(content: Content, header: int | None, copied: Copied, proven: Proven) -> None:
    """Check that the bytes are as many as header and census say, and hold what the source held.

    Raises NotTheSame.
    """
    counted = proven.census.page_count * proven.census.page_size
    if not content.bytes == counted == header:
        raise NotTheSame(
            f"the copy has {content.bytes} bytes, its census counts {counted}, its header {header}"
        )
    if found := verdict.find_disagreements(copied, proven.census):
        raise NotTheSame(f"the copy is not what the source was: {'; '.join(found[:3])}")
