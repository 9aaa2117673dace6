"""The run: each account through worker, proof, seal and retention; no account's failure stops another's.

This is where errors end and become results. What people see of them is `report`'s.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import t3_backup
from t3_backup import manifest as manifests
from t3_backup import owner, retention, verdict
from t3_backup.accounts import Account
from t3_backup.blank import Blank, Content, header_bytes
from t3_backup.errors import Failure, SourceAbsent, WorkerLost
from t3_backup.manifest import Manifest
from t3_backup.owner import Limits
from t3_backup.protocol import Event, Outcome
from t3_backup.settings import Settings
from t3_backup.store import Shelf, Store

OUTCOMES = ("backed_up", "skipped", "failed", "planned")


@dataclass(frozen=True)
class Result:
    """What became of one account."""

    user: str
    outcome: str  # one of OUTCOMES
    reason: str = ""
    snapshots: tuple[dict[str, Any], ...] = ()  # as the interface has them, newest first
    pruned: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def alarms(self) -> bool:
        """True where somebody must look: failed, or kept but not good."""
        return self.outcome == "failed" or any(snapshot["verdict"] != "verified" for snapshot in self.snapshots)


Listener = Callable[[str, Event], None]


@dataclass(frozen=True)
class Job:
    """What a run needs of everywhere, but for the account."""

    settings: Settings
    store: Store
    label: str | None
    stopping: threading.Event
    listen: Listener
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def limits(self) -> Limits:
        """The limits of one worker."""
        return _limits(self.settings, self.store.free_bytes)


def _limits(settings: Settings, free_bytes: Callable[[], int]) -> Limits:
    return Limits(settings.timeout, settings.stall, settings.wal_budget, settings.reserve, free_bytes)


def run(job: Job, accounts: Sequence[Account], finished: Callable[[Result], None]) -> list[Result]:
    """Back up every account, `jobs` at a time; `finished` hears of each as it is done. The results in the order of `accounts`."""
    until = time.monotonic() + job.settings.run_timeout

    def one(account: Account) -> Result:
        if time.monotonic() > until:
            result = Result(account.user, "failed", f"not begun: the run is over its {job.settings.run_timeout} s")
        elif job.stopping.is_set():
            result = Result(account.user, "failed", "not begun: the run was stopped")
        else:
            result = _result(account, partial(_back_up, job, account))
        finished(result)
        return result

    with ThreadPoolExecutor(job.settings.jobs, thread_name_prefix="account") as pool:
        return list(pool.map(one, accounts))


def plan(
    settings: Settings, accounts: Sequence[Account], stopping: threading.Event, finished: Callable[[Result], None]
) -> list[Result]:
    """What a run would do: each source is looked for as its owner, and nothing is written; there may be no store yet."""
    ancestor = next(path for path in (settings.dest, *settings.dest.parents) if path.exists())

    def free_bytes() -> int:
        status = os.statvfs(ancestor)
        return status.f_bavail * status.f_frsize

    def look(account: Account) -> Result:
        try:
            source, _ = owner.work(account, "look", _limits(settings, free_bytes), stopping=stopping, listen=lambda _: None)
        except SourceAbsent as absent:
            return Result(account.user, "skipped", str(absent))
        assert source is not None
        return Result(account.user, "planned", f"{account.source} ({source.bytes} bytes, -wal {source.wal_bytes})")

    results = []
    for account in accounts:
        results.append(_result(account, partial(look, account)))
        finished(results[-1])
    return results


def _result(account: Account, step: Callable[[], Result]) -> Result:
    try:
        return step()
    except Failure as failure:
        return Result(account.user, "failed", str(failure))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Result(account.user, "failed", f"{where}{error.strerror or error}")


def _back_up(job: Job, account: Account) -> Result:
    shelf = job.store.shelf(account.user, create=True)
    assert shelf is not None
    with shelf:
        shelf.clear()
        before = shelf.snapshots()
        try:
            taken = [_take(job, account, shelf, before)]
        except SourceAbsent as absent:
            with contextlib.suppress(OSError):  # not empty: there were snapshots once
                os.rmdir(account.user, dir_fd=job.store.fd)
            return _absent(job, account, absent)
        warnings = _clock_warnings(before, taken[0])
        if taken[0].verdict == "damaged":
            try:
                taken.insert(0, _take(job, account, shelf, [*taken, *before], witness=taken[0]))
            except (Failure, OSError) as error:
                warnings.append(f"{account.user}: VACUUM INTO, tried as a second witness, failed too: {error}")
        pruned: tuple[str, ...] = ()
        if taken[0].verdict == "verified":
            pruned, held = _prune(shelf, job.settings.keep)
            warnings += [f"{account.user}: nothing is pruned: {held}; t3-backup-state accept {account.user}"] if held else []
        documents = tuple(document(shelf, snapshot) for snapshot in taken)
    return Result(account.user, "backed_up", "; ".join(taken[-1].reasons), documents, pruned, tuple(warnings))


def _absent(job: Job, account: Account, absent: SourceAbsent) -> Result:
    """No database: a user who has none is skipped; one who had one is an alarm."""
    shelf = job.store.shelf(account.user)
    if shelf is not None:
        with shelf:
            count = len(shelf.snapshots())
        if count:
            return Result(account.user, "failed", f"{absent}, but there are {count} snapshots of it: was it deleted?")
    return Result(account.user, "skipped", str(absent))


def _take(job: Job, account: Account, shelf: Shelf, before: Sequence[Manifest], witness: Manifest | None = None) -> Manifest:
    """One sealed snapshot. As a `witness` it is a VACUUM of a damaged source: worth having, never taken for good."""

    def listen(event: Event) -> None:
        job.listen(account.user, event)

    when = job.now()  # before the pin: what was committed by then is in the snapshot
    with shelf.begin() as blank:
        method = "vacuum" if witness else "online"
        _, outcome = owner.work(
            account, "copy", job.limits(), file=blank.writer, method=method, stopping=job.stopping, listen=listen
        )
        assert outcome is not None
        content = blank.settle()
        _must_agree(blank, content, outcome)
        previous = next((snapshot for snapshot in before if snapshot.verdict == "verified"), None)
        judged = verdict.judge(outcome.problems, outcome.census, outcome.method, previous)
        if witness and judged.verdict != "damaged":
            judged = verdict.Verdict("suspect", (f"rebuilt by VACUUM INTO from the damaged source of {witness.name}",))
        name = manifests.snapshot_name(when, job.label, shelf.taken_names())
        sequence = 1 + max((snapshot.sequence for snapshot in before), default=0)
        snapshot = _manifest(account, name, when, sequence, job.label, content, outcome, judged)
        shelf.publish(blank, snapshot)
        return snapshot


def _must_agree(blank: Blank, content: Content, outcome: Outcome) -> None:
    """Root's own part of the proof: the bytes are as many as the header and the census say. Raises WorkerLost."""
    counted = outcome.census.page_count * outcome.census.page_size
    if outcome.problems:
        return
    if not content.bytes == counted == header_bytes(blank.reader):
        raise WorkerLost(
            f"the copy has {content.bytes} bytes, its census counts {counted}, its header {header_bytes(blank.reader)}"
        )


def _manifest(
    account: Account,
    name: str,
    when: datetime,
    sequence: int,
    label: str | None,
    content: Content,
    outcome: Outcome,
    judged: verdict.Verdict,
) -> Manifest:
    return Manifest(
        format=manifests.FORMAT,
        sequence=sequence,
        user=account.user,
        name=name,
        taken_at=manifests.format_time(when),
        label=label,
        bytes=content.bytes,
        sha256=content.sha256,
        method=outcome.method,
        verdict=judged.verdict,
        reasons=judged.reasons,
        accepted_at=None,
        t3_level=outcome.census.t3_level,
        page_size=outcome.census.page_size,
        page_count=outcome.census.page_count,
        source_bytes=outcome.source_bytes,
        wal_growth_bytes=outcome.wal_growth_bytes,
        restarts=outcome.restarts,
        copy_seconds=round(outcome.copy_seconds, 3),
        proof_seconds=round(outcome.proof_seconds, 3),
        census=outcome.census,
        sqlite_version=outcome.sqlite_version,
        tool_version=t3_backup.__version__,
    )


def _prune(shelf: Shelf, keep: int) -> tuple[tuple[str, ...], str]:
    """Remove what retention lets go; the names, and which snapshot holds everything, if one does."""
    snapshots = shelf.snapshots()
    gone = [decision.snapshot for decision in retention.decide(snapshots, keep) if not decision.keep]
    for snapshot in reversed(gone):  # the oldest first: a stop in between leaves what is newer
        shelf.remove(snapshot)
    held = next((f"{s.name} is {s.verdict} ({'; '.join(s.reasons)})" for s in snapshots if s.holds), "")
    return tuple(snapshot.name for snapshot in gone), held


def _clock_warnings(before: Sequence[Manifest], taken: Manifest) -> list[str]:
    ahead = [snapshot.name for snapshot in before if snapshot.when > taken.when + timedelta(days=1)]
    return [f"{taken.user}: the clock has gone back: {ahead[0]} is newer than now; nothing is pruned by it"] if ahead else []


def accept(store: Store, user: str, now: datetime) -> list[Manifest]:
    """End the hold of an account: its suspect snapshots count as good, its damaged ones no longer stop pruning.

    The accepted ones as they are from now on. Raises Failure where the account has no shelf.
    """
    shelf = store.shelf(user)
    if shelf is None:
        raise Failure(f"no snapshots of {user} in {store.path}")
    accepted = []
    with shelf:
        for snapshot in shelf.snapshots():
            if snapshot.holds:
                good = "verified" if snapshot.verdict == "suspect" else snapshot.verdict
                accepted.append(replace(snapshot, accepted_at=manifests.format_time(now), verdict=good))
                shelf.replace_manifest(accepted[-1])
    return accepted


def document(shelf: Shelf, snapshot: Manifest) -> dict[str, Any]:
    """A snapshot as the interface has it: its manifest and where its data is."""
    return snapshot.as_json() | {"path": str(shelf.data_path(snapshot))}
