"""Take one snapshot of one account, from the copies to its name.

The steps: copy, settle, hash and prove, judge, publish. Two workers do it: the one that copies
holds the new files and is dead before anybody believes what is in them; the one that proves starts
meanwhile, and can only read them. Beside it, root hashes the same bytes. Until `publish` nothing
has a name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import t3_backup
from t3_backup.backup import publish, verdict
from t3_backup.backup.archive import ArchiveMaker
from t3_backup.backup.limits import limits_until
from t3_backup.backup.order import SnapshotOrder
from t3_backup.backup.publish import Published, SettledFile
from t3_backup.backup.verdict import Judged, Judgement
from t3_backup.errors import NotTheSame, SourceError, WorkerLost
from t3_backup.store import manifest as manifests
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, read_database_bytes
from t3_backup.store.listing import Listing, archive_name
from t3_backup.store.manifest import (
    Companion,
    DatabaseRecord,
    Manifest,
    Missing,
    sort_databases,
)
from t3_backup.store.names import snapshot_name
from t3_backup.store.staged_file import StagedFile
from t3_backup.system.deadline import Deadline
from t3_backup.text import format_time
from t3_backup.worker import client
from t3_backup.worker.client import Worker
from t3_backup.worker.operations.backup import Copied, CopiedAll
from t3_backup.worker.operations.proof import Proven, ProvenAll
from t3_backup.worker.operations.restore import Checkpointed, CloneDatabase
from t3_backup.worker.proof import prove_files, start_prover
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


def take_snapshot(
    order: SnapshotOrder,
    account_dir: AccountDir,
    listing: Listing,
    *,
    archive_maker: ArchiveMaker,
    share: bool = False,
) -> Published:
    """Take, seal and publish one of all databases, in the account's folder that `listing` is of.

    `archive_maker` archives the files beside them after the copy: what the databases speak of is
    there by then. With `share` it shares extents with the one before. Raises Failure and OSError,
    and then nothing is named.
    """
    deadline = Deadline.after(order.limits.seconds)
    with copied_files(account_dir) as copied, start_prover(order.account, order.limits) as prover:
        wanted = archive_maker.order_archive()
        answer = client.copy_databases(
            order.account,
            copied.provide,
            order.limits,
            order.stopping,
            order.listen,
            archive=wanted,
        )
        copied.take(answer)
        companion = archive_maker.get_companion(wanted, answer.beside, deadline)
        if companion is not None:
            listing = listing.with_file(archive_name(companion))
        return _prove_and_publish(
            order, account_dir, listing, copied, deadline, prover, companion, share=share
        )


def take_witness(
    order: SnapshotOrder,
    account_dir: AccountDir,
    listing: Listing,
    damaged: Manifest,
    *,
    archive_maker: ArchiveMaker,
) -> Published:
    """Take one more of the live database by VACUUM, beside a `damaged` copy of the same source.

    It is worth having, and never taken for good. Raises as `take_snapshot` does.
    """
    deadline, file = Deadline.after(order.limits.seconds), damaged.live.file
    with copied_files(account_dir) as copied:
        copied.take_one(
            file,
            client.copy_database(
                order.account,
                copied.stage(file).writer,
                order.limits,
                order.stopping,
                order.listen,
                method="vacuum",
                database=file,
            ),
        )
        proven = settle_and_prove(order, copied, deadline, None)
        [one] = proven.values()
        judged = verdict.judge_proof(one.copied, one.proven, None)
        if judged.verdict != "damaged":
            why = f"rebuilt by VACUUM INTO from the damaged source of {damaged.name}"
            judged = Judgement("suspect", (why,))
        sequence, whole = listing.next_sequence(), Judged({file: judged})
        manifest = make_manifest(order, listing, sequence, copied, proven, whole)
        snapshot = replace(manifest, companion=archive_maker.made)
        return publish.publish_snapshot(account_dir, {file: one.settled}, snapshot, listing)


def take_folded(
    order: SnapshotOrder,
    account_dir: AccountDir,
    listing: Listing,
    folded: Mapping[str, Checkpointed],
    live: str,
    missing: Sequence[Missing] = (),
    *,
    archive_maker: ArchiveMaker,
) -> Published:
    """Take one of databases that nobody has open and that are whole in their one files.

    Their bytes are copied. What else was there is `missing`. Raises as `take_snapshot` does.
    """
    deadline = Deadline.after(order.limits.seconds)
    with copied_files(account_dir) as copied, start_prover(order.account, order.limits) as prover:
        wanted = archive_maker.order_archive()
        for file, old in sorted(folded.items()):
            assert old.old is not None
            assert old.census is not None
            clone = CloneDatabase(file, old.old, old.census)
            copied.take_one(
                file,
                client.ask(
                    order.account,
                    clone,
                    order.limits,
                    order.stopping,
                    order.listen,
                    file=copied.stage(file).writer,
                ),
            )
        copied.live, copied.missing = live, [*missing]
        companion = archive_maker.get_companion(wanted, None, deadline)
        if companion is not None:
            listing = listing.with_file(archive_name(companion))
        return _prove_and_publish(
            order, account_dir, listing, copied, deadline, prover, companion, share=False
        )


def _prove_and_publish(
    order: SnapshotOrder,
    account_dir: AccountDir,
    listing: Listing,
    copied: CopiedFiles,
    deadline: Deadline,
    prover: Worker[ProvenAll] | None,
    companion: Companion | None,
    *,
    share: bool,
) -> Published:
    proven = settle_and_prove(order, copied, deadline, prover)
    judged = verdict.judge_databases(
        {file: (one.copied, one.proven) for file, one in proven.items()},
        copied.missing,
        listing.snapshots,
    )
    sequence = listing.next_sequence()
    manifest = make_manifest(order, listing, sequence, copied, proven, judged)
    snapshot = replace(manifest, companion=companion)
    settled = {file: one.settled for file, one in proven.items()}
    return publish.publish_snapshot(account_dir, settled, snapshot, listing, share=share)


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
    names = sorted(copied.copies)
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


def make_manifest(
    order: SnapshotOrder,
    listing: Listing,
    sequence: int,
    copied: CopiedFiles,
    proven: Mapping[str, ProvenFile],
    judged: Judged,
) -> Manifest:
    """Make the manifest of what was taken, with a name that is free."""
    records = [
        _make_record(file, copied.live, one, judged.databases[file]) for file, one in proven.items()
    ]
    whole = judged.of_whole(copied.live)
    return Manifest(
        format=manifests.FORMAT,
        sequence=sequence,
        user=order.account.user,
        name=snapshot_name(order.when, order.label, listing.used_stems(), tuple(proven)),
        taken_at=format_time(order.when),
        label=order.label,
        verdict=whole.verdict,
        reasons=whole.reasons,
        accepted_at=None,
        databases=sort_databases(records),
        tool_version=t3_backup.__version__,
        missing=tuple(sorted(copied.missing, key=lambda one: one.file)),
        pin_seconds=round(copied.pin_seconds, 3),
    )


def _make_record(file: str, live: str, one: ProvenFile, judged: Judgement) -> DatabaseRecord:
    copied, proven, content = one.copied, one.proven, one.settled.content
    return DatabaseRecord(
        file=file,
        live=file == live,
        bytes=content.bytes,
        sha256=content.sha256,
        method=copied.method,
        verdict=judged.verdict,
        reasons=judged.reasons,
        t3_level=proven.census.t3_level,
        page_size=proven.census.page_size,
        page_count=proven.census.page_count,
        source_bytes=copied.source_bytes,
        wal_growth_bytes=copied.wal_growth_bytes,
        restarts=copied.restarts,
        copy_seconds=round(copied.seconds, 3),
        proof_seconds=round(proven.seconds, 3),
        census=replace(proven.census, ledger=None),
        ledger=proven.census.ledger,
        sqlite_version=proven.sqlite_version,
        moment=copied.moment,
    )
