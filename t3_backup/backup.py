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

from t3_backup import manifest as manifests
from t3_backup import owner, retention
from t3_backup.accounts import Account
from t3_backup.errors import Failure, SourceAbsent, explain
from t3_backup.manifest import Manifest
from t3_backup.protocol import Event
from t3_backup.settings import Settings
from t3_backup.shelf import Shelf
from t3_backup.store import Store
from t3_backup.taking import Order, take
from t3_backup.watch import Limits

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
    seconds = job.settings.run_timeout(len(accounts))
    until = time.monotonic() + seconds

    def one(account: Account) -> Result:
        if time.monotonic() > until:
            result = Result(account.user, "failed", f"not begun: the run is over its {seconds} s")
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
            source = owner.look(account, _limits(settings, free_bytes), stopping)
        except SourceAbsent as absent:
            return Result(account.user, "skipped", str(absent))
        return Result(account.user, "planned", f"{account.source} ({source.bytes} bytes, -wal {source.wal_bytes})")

    results = []
    for account in accounts:
        results.append(_result(account, partial(look, account)))
        finished(results[-1])
    return results


def _result(account: Account, step: Callable[[], Result]) -> Result:
    try:
        return step()
    except (Failure, OSError) as error:
        return Result(account.user, "failed", explain(error))
    except Exception as error:  # noqa: BLE001 - a mistake of ours must not cost the other accounts their backup
        return Result(account.user, "failed", f"internal error, please report it: {error!r}")


def _back_up(job: Job, account: Account) -> Result:
    shelf = job.store.shelf(account.user, create=True)
    assert shelf is not None
    with shelf:
        shelf.clear()
        before = shelf.snapshots()
        began = time.monotonic()
        order = Order(account, job.limits(), job.label, job.now(), job.stopping, partial(job.listen, account.user))
        try:
            taken = [take(order, shelf, before)]
        except SourceAbsent as absent:
            with contextlib.suppress(OSError):  # not empty: there were snapshots once
                os.rmdir(account.user, dir_fd=job.store.fd)
            return _absent(job, account, absent)
        warnings = _clock_warnings(before, taken[0])
        if taken[0].verdict == "damaged":
            left = replace(order.limits, seconds=order.limits.seconds - (time.monotonic() - began))
            try:
                taken.insert(0, take(replace(order, limits=left), shelf, [*taken, *before], witness=taken[0]))
            except (Failure, OSError) as error:
                warnings.append(f"{account.user}: VACUUM INTO, tried as a second witness, failed too: {explain(error)}")
        pruned: list[str] = []
        if taken[0].verdict == "verified":
            warnings += _prune(shelf, job.settings.keep, pruned)
        documents = tuple(document(shelf, snapshot) for snapshot in taken)
    return Result(account.user, "backed_up", "; ".join(taken[-1].reasons), documents, tuple(pruned), tuple(warnings))


def _absent(job: Job, account: Account, absent: SourceAbsent) -> Result:
    """No database: a user who has none is skipped; one who had one is an alarm."""
    shelf = job.store.shelf(account.user)
    if shelf is not None:
        with shelf:
            count = len(shelf.snapshots())
        if count:
            return Result(account.user, "failed", f"{absent}, but there are {count} snapshots of it: was it deleted?")
    return Result(account.user, "skipped", str(absent))


def _prune(shelf: Shelf, keep: int, pruned: list[str]) -> list[str]:
    """Remove what retention lets go, and add the names to `pruned`; what somebody should know about it."""
    snapshots = shelf.snapshots()
    if held := next((snapshot for snapshot in snapshots if snapshot.holds), None):
        why = f"{held.name} is {held.verdict} ({'; '.join(held.reasons)})"
        return [f"{shelf.user}: nothing is pruned: {why}; t3-backup-state accept {shelf.user}"]
    gone = [decision.snapshot for decision in retention.decide(snapshots, keep) if not decision.keep]
    for snapshot in reversed(gone):  # the oldest first: a stop in between leaves what is newer
        try:
            shelf.remove(snapshot)
        except OSError as error:
            return [f"{shelf.user}: {snapshot.name} can't be pruned: {error.strerror}"]
        pruned.append(snapshot.name)
    return []


def _clock_warnings(before: Sequence[Manifest], taken: Manifest) -> list[str]:
    ahead = [snapshot.name for snapshot in before if snapshot.when > taken.when + timedelta(days=1)]
    return [f"{taken.user}: the clock has gone back: {ahead[0]} is newer than now; nothing is pruned by it"] if ahead else []


def accept(store: Store, user: str, now: datetime) -> list[Manifest]:
    """End the hold of an account: somebody has looked at what is suspect or damaged, and it stops pruning no longer.

    Each keeps its verdict, and so never counts among the good ones that retention keeps. The accepted ones as they are from
    now on. Raises Failure where the account has no shelf.
    """
    shelf = store.shelf(user)
    if shelf is None:
        raise Failure(f"no snapshots of {user} in {store.path}")
    accepted = []
    with shelf:
        for snapshot in shelf.snapshots():
            if snapshot.holds:
                accepted.append(replace(snapshot, accepted_at=manifests.format_time(now)))
                shelf.replace_manifest(accepted[-1])
    return accepted


def document(shelf: Shelf, snapshot: Manifest) -> dict[str, Any]:
    """A snapshot as the interface has it: its manifest and where its data is."""
    return snapshot.as_json() | {"path": str(shelf.data_path(snapshot))}
