"""Take one snapshot of one account, from the copy to its name.

The steps: copy, settle, hash and prove, judge, publish. Two workers do it: the one that copies
holds the new file and is dead before anybody believes what is in it; the one that proves starts
meanwhile, and can only read it. Beside it, root hashes the same bytes. Until `publish` nothing has
a name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import t3_backup
from t3_backup.backup import publish, verdict
from t3_backup.backup.archive import ArchiveMaker
from t3_backup.backup.limits import limits_until
from t3_backup.backup.order import SnapshotOrder
from t3_backup.backup.publish import Published
from t3_backup.backup.verdict import Judgement
from t3_backup.errors import NotTheSame
from t3_backup.store import manifest as manifests
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import Content, read_database_bytes
from t3_backup.store.listing import Listing, archive_name
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import snapshot_name
from t3_backup.store.staged_file import StagedFile
from t3_backup.system.deadline import Deadline
from t3_backup.text import format_time
from t3_backup.worker import client
from t3_backup.worker.client import Worker
from t3_backup.worker.operations.backup import Copied
from t3_backup.worker.operations.proof import Proven
from t3_backup.worker.operations.restore import Checkpointed, CloneDatabase
from t3_backup.worker.proof import prove_file, start_prover


def take_snapshot(
    order: SnapshotOrder,
    account_dir: AccountDir,
    listing: Listing,
    *,
    witness: Manifest | None = None,
    folded: Checkpointed | None = None,
    archive_maker: ArchiveMaker,
    share: bool = False,
) -> Published:
    """Take, seal and publish one, in the account's folder that `listing` is of.

    As a `witness` of a damaged snapshot it is a VACUUM of the same source: worth having, never
    taken for good. Where the source is `folded`, its bytes are copied. `archive_maker` archives
    the files beside it after the copy: what the database speaks of is there by then. With `share`
    it shares extents with the one before. Raises Failure and OSError, and then nothing is named.
    """
    deadline = Deadline.after(order.limits.seconds)
    with (
        account_dir.stage_file() as staged_file,
        start_prover(order.account, order.limits) as prover,
    ):
        wanted = archive_maker.order_archive()
        copied = (
            _copy_folded(order, staged_file.writer, folded)
            if folded is not None
            else client.copy_database(
                order.account,
                staged_file.writer,
                order.limits,
                order.stopping,
                order.listen,
                method="vacuum" if witness else "online",
                archive=wanted,
            )
        )
        companion = archive_maker.get_companion(wanted, copied.beside, deadline)
        if companion is not None:
            listing = listing.with_file(archive_name(companion))
        content, proven = settle_and_prove(order, staged_file, copied, deadline, prover)
        judged = _judge(copied, proven, listing.snapshots, witness)
        manifest = make_manifest(
            order, listing, listing.next_sequence(), copied, proven, content, judged
        )
        snapshot = replace(manifest, companion=companion)
        return publish.publish_snapshot(
            account_dir, staged_file, content, snapshot, listing, share=share
        )


def _copy_folded(order: SnapshotOrder, file: int, folded: Checkpointed) -> Copied:
    assert folded.old is not None
    assert folded.census is not None
    operation = CloneDatabase(folded.old, folded.census)
    return client.ask(
        order.account, operation, order.limits, order.stopping, order.listen, file=file
    )


def settle_and_prove(
    order: SnapshotOrder,
    staged_file: StagedFile,
    copied: Copied,
    deadline: Deadline,
    prover: Worker[Proven] | None = None,
) -> tuple[Content, Proven]:
    """End all writing to the file that was copied into, hash it and have it proven.

    A `prover` is a worker that waits for this. Raises Failure and OSError; NotTheSame where it
    isn't what was copied.
    """
    staged_file.settle()
    left = limits_until(order.limits, deadline)
    fd = staged_file.open()
    try:
        content, proven = prove_file(
            order.account, fd, left, order.stopping, order.listen, pages=True, waiting=prover
        )
        if not proven.problems:
            _check_agreement(content, read_database_bytes(fd), copied, proven)
        return content, proven
    finally:
        os.close(fd)


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


def _judge(
    copied: Copied, proven: Proven, before: Sequence[Manifest], witness: Manifest | None
) -> Judgement:
    judged = verdict.judge_copy(
        proven.problems, proven.census, copied.method, verdict.choose_yardstick(before)
    )
    if witness and judged.verdict != "damaged":
        return Judgement(
            "suspect", (f"rebuilt by VACUUM INTO from the damaged source of {witness.name}",)
        )
    return judged


def make_manifest(
    order: SnapshotOrder,
    listing: Listing,
    sequence: int,
    copied: Copied,
    proven: Proven,
    content: Content,
    judged: Judgement,
) -> Manifest:
    """Make the manifest of what was taken, with a name that is free."""
    return Manifest(
        format=manifests.FORMAT,
        sequence=sequence,
        user=order.account.user,
        name=snapshot_name(order.when, order.label, listing.used_stems()),
        taken_at=format_time(order.when),
        label=order.label,
        bytes=content.bytes,
        sha256=content.sha256,
        method=copied.method,
        verdict=judged.verdict,
        reasons=judged.reasons,
        accepted_at=None,
        t3_level=proven.census.t3_level,
        page_size=proven.census.page_size,
        page_count=proven.census.page_count,
        source_bytes=copied.source_bytes,
        wal_growth_bytes=copied.wal_growth_bytes,
        restarts=copied.restarts,
        copy_seconds=round(copied.seconds, 3),
        proof_seconds=round(proven.seconds, 3),
        census=proven.census,
        sqlite_version=proven.sqlite_version,
        tool_version=t3_backup.__version__,
    )
