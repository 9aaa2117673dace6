"""Put a snapshot back in the place of the live databases.

The order: prove all its images; stage each beside the live ones; stop the server; checkpoint the
old state into one file each and seal that as a snapshot of its own (prerestore); exchange one
after the other. What is about to be done is on the disk before it is done (`intent_log`). All that
happens beneath a home is done by workers, as its owner.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from t3_backup.errors import Cancelled, Failure, InUse, WorkerLost, explain
from t3_backup.history import verify
from t3_backup.history.verify import Finding
from t3_backup.restore import intent_log
from t3_backup.restore.finish import finish_restore
from t3_backup.restore.intent_log import Intent
from t3_backup.restore.job import RestoreJob
from t3_backup.restore.old_state import seal_old_state
from t3_backup.store import archives
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import PRERESTORE
from t3_backup.store.replacement import Replacement
from t3_backup.system import open_files
from t3_backup.system.file_identity import ProcFile
from t3_backup.text import format_time
from t3_backup.worker import client, installed, left_behind
from t3_backup.worker.operations.archive import StageArchive
from t3_backup.worker.operations.restore import (
    CheckpointDatabases,
    CheckpointedAll,
    Staged,
    StageDatabase,
    SwapDatabases,
)


@dataclass
class Restored:
    """What a restore did. Durations in seconds, by step."""

    snapshot: Manifest
    prerestore: Manifest | None = None  # what it took the place of
    # where what could not be sealed of the old state lies beside the new one
    kept: list[str] = field(default_factory=list)
    # names of the databases that are back, and of those that are gone since the snapshot has none
    put_back: tuple[str, ...] = ()
    put_aside: tuple[str, ...] = ()
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
            took = self.seconds.get(step, 0.0) + time.monotonic() - began
            self.seconds[step] = round(took, 3)


def restore_in_place(job: RestoreJob) -> Restored:
    """Restore, under the store's lock. Raises Failure and OSError.

    Then the old state is in its place, whole, or it says what is. InUse names who has a live
    database open, LeftBehind that a worker of an earlier command is still there.
    """
    with left_behind.marked(job.store, job.account) as account:
        return _restore(replace(job, account=account))


def _restore(job: RestoreJob) -> Restored:
    done = Restored(job.snapshot)
    with contextlib.ExitStack() as held:
        listing = job.account_dir.read_listing()
        # Whoever restores needs it now, and has it for a moment only: to the end of the disk.
        limits = replace(job.limits, reserve=0)
        data = dict[str, int]()
        for image in job.images:
            plain = listing.is_plain(image)
            with contextlib.nullcontext() if plain else done.timed("data"):
                fd = verify.open_image(job.account_dir, listing, image, limits, job.stopping)
            held.callback(os.close, fd)
            data[image.file] = fd
        _restore_data(job, done, data, held.close)
    return done


def _restore_data(
    job: RestoreJob, done: Restored, data: Mapping[str, int], release: Callable[[], None]
) -> None:
    """Restore the bytes in the open files `data`, by database, until they are released."""
    with done.timed("proof"):
        _prove_snapshot(job, data)
    job.say(f"proven {job.snapshot.name}")
    began = job.now()
    aside = f".replaced-{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    what = (job.account.user, job.snapshot.name, format_time(began), aside)
    planned = tuple(Replacement(file, None, None) for file in data) if job.database else ()
    base_dir = None if job.account.base_dir is None else str(job.account.base_dir)
    plan = Intent(*what, base_dir, databases=planned, files=job.files)
    plan.save(job.store)
    problem: Exception | None = None
    try:
        _prepare_and_exchange(job, plan, done, data, release)
    except Exception as error:  # noqa: BLE001 - the server is stopped, and something is staged
        problem = error
    _finish(job, done, problem)


def _prepare_and_exchange(
    job: RestoreJob,
    plan: Intent,
    done: Restored,
    data: Mapping[str, int],
    release: Callable[[], None],
) -> None:
    staged = _stage_all(job, plan, done, data)
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
    live = [one.opened for one in staged.values() if one.opened is not None]
    try:
        with done.timed("fold"):
            checkpoint = CheckpointDatabases(tuple(staged))
            folded = client.ask(job.account, checkpoint, job.limits, job.stopping)
        live = [one.opened for one in folded.databases if one.opened is not None] or live
        if held := [one for one in folded.databases if one.held]:
            live = [one.opened for one in held if one.opened is not None]
            raise InUse("; ".join(one.reason for one in held))
        with done.timed("prerestore"):
            old = seal_old_state(job, folded)
            done.prerestore = old.snapshot
            done.warnings += old.warnings
        installed.require_same()  # later there is no way back
        # Of what is beside a database nothing goes but what is known to be in the archive: so it
        # is, whoever ends this.
        plan = replace(plan, begun=True, sealed=old.marks)
        if job.database:
            plan = replace(plan, databases=_plan_exchange(job, folded, staged, old.holds))
        plan.save(job.store)
        if job.database:
            with done.timed("exchange"):
                # Nothing but a limit stops it.
                swap = SwapDatabases(plan.aside, plan.databases)
                client.ask(job.account, swap, job.limits, threading.Event())
    except InUse as error:
        raise _with_holders(error, live) from None


def _plan_exchange(
    job: RestoreJob, folded: CheckpointedAll, staged: Mapping[str, Staged], sealed: frozenset[str]
) -> tuple[Replacement, ...]:
    """Plan what becomes of each database: what is put back, the live one last; then the rest.

    That rest is what the snapshot lacks, and what can be moved. What is not `sealed` is kept.
    """
    found = {one.file: one for one in folded.databases}
    if missing := staged.keys() - found.keys():
        raise WorkerLost(f"the worker has passed over {', '.join(sorted(missing))}")
    rest = () if job.file is not None else sorted(found.keys() - staged.keys())
    planned = []
    for file in (*staged, *rest):
        one, new = found[file], staged.get(file)
        if new is None and one.old is None:
            continue
        keep = (one.old is not None and file not in sealed) or bool(one.beside)
        into = None if new is None else new.staged
        planned.append(Replacement(file, one.old, into, one.beside, keep))
    return tuple(planned)


def _stage_all(
    job: RestoreJob, plan: Intent, done: Restored, data: Mapping[str, int]
) -> dict[str, Staged]:
    """Write all that is to be put back beside what is there.

    Return what was staged, by database, where databases are to be replaced.
    """
    found = dict[str, Staged]()
    with done.timed("copy"):
        for image in job.images if job.database else ():
            stage = StageDatabase(image.file, plan.aside)
            staged = client.ask(job.account, stage, job.limits, job.stopping, file=data[image.file])
            if staged.staged is None:
                raise WorkerLost("the worker has not said what it has written")
            if differences := image.record.census.differences(staged.census):
                why = "; ".join(differences[:3])
                raise WorkerLost(f"what was written is not {image.name}: {why}")
            found[image.file] = staged
        if job.files:
            assert job.snapshot.companion is not None
            fd = archives.open_archive(job.account_dir, job.snapshot.companion)
            try:
                unpack = StageArchive(plan.staged_files, job.snapshot.companion.content_bytes)
                client.ask(job.account, unpack, job.limits, job.stopping, file=fd)
            finally:
                os.close(fd)
    return found


def _with_holders(error: InUse, live: Sequence[ProcFile]) -> InUse:
    """Add to the error who has one of the live databases open."""
    if who := open_files.describe_holders(*live):
        return InUse(f"{error}; it is held by {who}; nothing was changed")
    return InUse(f"{error}; nothing was changed: try again")


def _prove_snapshot(job: RestoreJob, data: Mapping[str, int]) -> None:
    snapshot, limits, stopping = job.snapshot, job.limits, job.stopping
    # to undo is to have what there was
    for image in job.images if snapshot.label != PRERESTORE else ():
        if image.record.verdict == "damaged":
            what = f"{image.name} is damaged ({'; '.join(image.record.reasons)})"
            raise Failure(f"{what} and not put back; --to FILE writes it elsewhere")
    found = Finding()
    for image in job.images:
        one = verify.verify_bytes(data[image.file], image, limits, stopping)
        found += one.of_database(image)
    if job.files and snapshot.companion is not None:
        found += verify.verify_archive(job.account_dir, snapshot.companion, limits, stopping)
    verify.require_sound(snapshot.name, found, "put back")


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
    done.put_back = tuple(one.file for one in plan.databases if one.staged is not None)
    done.put_aside = tuple(one.file for one in plan.databases if one.staged is None)
    done.kept += ended.kept
    done.missing = ended.missing
    if problem is not None:
        done.warnings.append(f"it was completed after: {explain(problem)}")
