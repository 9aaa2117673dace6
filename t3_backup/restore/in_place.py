"""Put a snapshot back in the place of a live database.

The order: prove the snapshot; stage it beside the live database; stop the server; checkpoint the
old state into its one file and seal that as a snapshot of its own (prerestore); exchange the two in
one step. What is about to be done is on the disk before it is done (`intent_log`). All that happens
beneath a home is done by workers, as its owner.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from t3_backup.accounts import Account
from t3_backup.backup.archive import ArchiveMaker
from t3_backup.backup.order import SnapshotOrder
from t3_backup.backup.snapshot import take_snapshot
from t3_backup.errors import Cancelled, Failure, InUse, NotTheSame, SourceError, WorkerLost, explain
from t3_backup.history import chain, verify
from t3_backup.restore import intent_log
from t3_backup.restore.intent_log import Intent
from t3_backup.restore.recovery import finish_restore
from t3_backup.store import archives
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import PRERESTORE
from t3_backup.store.store import Store
from t3_backup.system import open_files
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.systemd import Service
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.text import format_time
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.archive import StageArchive
from t3_backup.worker.operations.restore import (
    CheckpointDatabase,
    Checkpointed,
    StageDatabase,
    SwapDatabases,
)
from t3_backup.worker.protocol import shorten_list


@dataclass(frozen=True)
class RestoreJob:
    """Whose database is to be replaced, with what, and who is to be told."""

    account: Account
    store: Store
    account_dir: AccountDir
    snapshot: Manifest
    service: Service | None  # the server's; None: there is none, or it is left alone
    limits: Limits
    stopping: threading.Event
    now: Callable[[], datetime]
    say: Callable[[str], None]  # a line of what was done
    database: bool = True  # whether the database is put back
    files: bool = False  # whether what was beside it is, which the snapshot must have
    files_limit: int = 0  # bytes of what is beside the live one, to be kept with it; 0: it is not


@dataclass
class Restored:
    """What a restore did. Durations in seconds, by step."""

    snapshot: Manifest
    prerestore: Manifest | None = None  # what it took the place of
    # where what could not be sealed of the old state lies beside the new one
    kept: list[str] = field(default_factory=list)
    missing: tuple[str, ...] = ()  # as in Recovered
    server: str = "none"  # the same
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note how long a step took."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(time.monotonic() - began, 3)


def restore_in_place(job: RestoreJob) -> Restored:
    """Restore, under the store's lock. Raises Failure and OSError.

    Then the old state is in its place, whole, or it says what is. InUse names who has the live
    database open.
    """
    done = Restored(job.snapshot)
    with contextlib.ExitStack() as held:
        listing = job.account_dir.read_listing()
        plain = listing.is_plain(job.snapshot)
        # Whoever restores needs it now, and has it for a moment only: to the end of the disk.
        limits = replace(job.limits, reserve=0)
        with contextlib.nullcontext() if plain else done.timed("data"):
            data = chain.open_data(job.account_dir, listing, job.snapshot, limits, job.stopping)
        held.callback(os.close, data)
        _restore_data(job, done, data, held.close)
    return done


def _restore_data(job: RestoreJob, done: Restored, data: int, release: Callable[[], None]) -> None:
    """Restore the bytes in the open file `data`, until it is released."""
    with done.timed("proof"):
        _prove_snapshot(job, data)
    job.say(f"proven {job.snapshot.name}")
    began = job.now()
    aside = f"{DATABASE_NAME}.replaced-{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    what = (job.account.user, job.snapshot.name, format_time(began), aside)
    plan = Intent(*what, database=job.database, files=job.files)
    plan.save(job.store)
    problem: Exception | None = None
    try:
        _prepare_and_exchange(job, plan, done, data, release)
    except Exception as error:  # noqa: BLE001 - the server is stopped, and something is staged
        problem = error
    _finish(job, done, problem)


def _prepare_and_exchange(
    job: RestoreJob, plan: Intent, done: Restored, data: int, release: Callable[[], None]
) -> None:
    live, staged = _stage_all(job, plan, done, data)
    release()
    if job.service is not None:
        ran, masked = job.service.runs(), not job.service.is_masked()
        plan = replace(plan, unit=job.service.unit, ran=ran, masked=masked)
        plan.save(job.store)
        with done.timed("stop"):
            job.service.stop(mask=plan.masked)
        if plan.ran:
            job.say(f"stopped {plan.unit}")
    if job.stopping.is_set():
        raise Cancelled("stopped before anything was replaced")
    try:
        with done.timed("fold"):
            folded = client.ask(job.account, CheckpointDatabase(), job.limits, job.stopping)
        live = folded.old or live
        with done.timed("prerestore"):
            done.prerestore, sealed = _seal_old_state(job, folded, done)
        keep = (folded.old is not None and done.prerestore is None) or bool(folded.beside)
        # Of what is beside a database nothing goes but what is known to be in the archive: so it
        # is, whoever ends this.
        plan = replace(plan, begun=True, old=folded.old, staged=staged, beside=folded.beside)
        plan = replace(plan, keep=keep, sealed=sealed)
        plan.save(job.store)
        if job.database:
            with done.timed("exchange"):
                # Nothing but a limit stops it.
                swap = SwapDatabases(plan.aside, plan.old, plan.beside)
                client.ask(job.account, swap, job.limits, threading.Event())
    except InUse as error:
        raise _with_holders(error, live) from None


def _stage_all(
    job: RestoreJob, plan: Intent, done: Restored, data: int
) -> tuple[FileIdentity | None, FileIdentity | None]:
    """Write all that is to be put back beside what is there.

    Return the live database, where it is to be replaced, and what was staged.
    """
    live = new = None
    with done.timed("copy"):
        if job.database:
            stage = StageDatabase(plan.aside)
            staged = client.ask(job.account, stage, job.limits, job.stopping, file=data)
            live, new = staged.live, staged.staged
            if found := job.snapshot.census.differences(staged.census):
                why = "; ".join(found[:3])
                raise WorkerLost(f"what was written is not {job.snapshot.name}: {why}")
        if job.files:
            assert job.snapshot.companion is not None
            fd = archives.open_archive(job.account_dir, job.snapshot.companion)
            try:
                unpack = StageArchive(plan.aside, job.snapshot.companion.content_bytes)
                client.ask(job.account, unpack, job.limits, job.stopping, file=fd)
            finally:
                os.close(fd)
    return live, new


def _with_holders(error: InUse, live: FileIdentity | None) -> InUse:
    """Add to the error who has the live database open."""
    who = open_files.describe_holders(live) if live else ""
    if who:
        return InUse(f"{error}; it is held by {who}; nothing was changed")
    return InUse(f"{error}; nothing was changed: try again")


def _seal_old_state(
    job: RestoreJob, folded: Checkpointed, done: Restored
) -> tuple[Manifest | None, dict[str, str]]:
    """Seal the old state as a snapshot.

    Return it, and the marks of the files that were packed with it. None where there is nothing that
    can be sealed, and then it is not removed.
    """
    if folded.old is None:
        if folded.reason:
            done.warnings.append(folded.reason)
        return None, {}
    now, listing = job.now(), job.account_dir.read_listing()
    order = SnapshotOrder(job.account, job.limits, PRERESTORE, now, job.stopping, lambda _: None)
    maker = ArchiveMaker(order, job.account_dir, listing.snapshots, job.files_limit)
    try:
        if not folded.whole:
            raise SourceError(folded.reason)
        taken = take_snapshot(order, job.account_dir, listing, folded=folded, archive_maker=maker)
    except (SourceError, NotTheSame) as error:  # it is no database that a copy could prove
        why = "the old state can't be sealed, so it was kept next to the new one"
        done.warnings.append(f"{error}: {why}")
        return None, {}
    kept = taken.snapshot
    if maker.not_packed:
        done.warnings.append(f"not packed: {shorten_list(maker.not_packed)}")
    if maker.unsaved:
        why = maker.unsaved
        done.warnings.append(f"the files next to the database could not be sealed: {why}")
    job.say(f"kept the present state as {kept.name} ({kept.verdict})")
    return kept, {} if kept.companion is None else maker.packed_marks


def _prove_snapshot(job: RestoreJob, data: int) -> None:
    snapshot, limits, stopping = job.snapshot, job.limits, job.stopping
    # to undo is to have what there was
    if snapshot.verdict == "damaged" and snapshot.label != PRERESTORE:
        what = f"{snapshot.name} is damaged ({'; '.join(snapshot.reasons)})"
        raise Failure(f"{what} and not put back; --to FILE writes it elsewhere")
    check = verify.verify_bytes(data, snapshot, limits, stopping)
    if job.files and snapshot.companion is not None:
        archive = verify.verify_archive(job.account_dir, snapshot.companion, limits, stopping)
        check = check.with_problem(archive)
    if not check.verifies:
        why = "; ".join(check.reasons[:5])
        raise Failure(f"{snapshot.name} does not verify and is not put back: {why}")


def _finish(job: RestoreJob, done: Restored, problem: Exception | None) -> None:
    """Complete or undo the restore, and say which.

    Raises `problem` where the old state is in its place.
    """
    plan = intent_log.load_intent(job.store, job.account.user)
    assert plan is not None
    try:
        ended = finish_restore(plan, job.account, job.store, job.limits)
    except (Failure, OSError) as error:
        said = f"{explain(problem)}; then " if problem else ""
        said += explain(error) + (f"; {plan.unit} stays stopped" if plan.unit else "")
        raise Failure(f"{said}; what is left is tried again by the next command") from error
    done.server = ended.server
    done.warnings += ended.warnings
    if ended.server == "started":
        job.say(f"started {plan.unit}")
    if ended.state != "new":
        for warning in ended.warnings:
            job.say(f"WARN: {warning}")
        raise problem or InUse(
            "another process had opened the live database in between; nothing was changed"
        )
    done.kept += ended.kept
    done.missing = ended.missing
    if problem is not None:
        done.warnings.append(f"it was completed after: {explain(problem)}")
