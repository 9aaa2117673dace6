"""Take one snapshot of one account, from the copies to its name.

The steps: copy, settle, hash and prove, judge, publish. Two workers do it: the one that copies
holds the new files and is dead before anybody believes what is in them; the one that proves starts
meanwhile, and can only read them. Beside it, root hashes the same bytes. Until `publish` nothing
has a name.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import t3_backup
from t3_backup.backup import publish, verdict
from t3_backup.backup.archive import ArchiveMaker
from t3_backup.backup.copied_files import (
    CopiedFiles,
    ProvenFile,
    copied_files,
    settle_and_prove,
)
from t3_backup.backup.order import SnapshotOrder
from t3_backup.backup.publish import Published
from t3_backup.backup.standing import find_standing
from t3_backup.backup.verdict import Judged, Judgement
from t3_backup.store import manifest as manifests
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.companion import Companion, archive_name
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import DatabaseRecord, Manifest, Missing, sort_databases
from t3_backup.store.names import snapshot_name
from t3_backup.system.deadline import Deadline
from t3_backup.text import format_time
from t3_backup.worker import client
from t3_backup.worker.client import Worker
from t3_backup.worker.operations.proof import ProvenAll
from t3_backup.worker.operations.restore import Checkpointed, CloneDatabase
from t3_backup.worker.proof import start_prover


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
    archive_maker.order = order  # what the account may take is known by now
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
        return _prove_and_publish(
            order,
            account_dir,
            listing,
            copied,
            deadline,
            prover,
            companion,
            share=share,
            unsound=archive_maker.unsound,
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
    stands: str | None = None,
) -> Published:
    """Take one of databases that nobody has open and that are whole in their one files.

    Their bytes are copied. What else was there is `missing`. `stands` names a snapshot that stands
    for it where it holds the same. Raises as `take_snapshot` does.
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
        return _prove_and_publish(
            order,
            account_dir,
            listing,
            copied,
            deadline,
            prover,
            companion,
            stands=stands,
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
    share: bool = False,
    stands: str | None = None,
    unsound: Container[str] = (),
) -> Published:
    if companion is not None:
        listing = listing.with_file(archive_name(companion))
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
    if stands is not None:
        known = find_standing(account_dir, settled, snapshot, listing, stands)
        if known is not None:
            return Published(known, listing, unchanged=True)
    return publish.publish_snapshot(
        account_dir, settled, snapshot, listing, share=share, unsound=unsound
    )


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
