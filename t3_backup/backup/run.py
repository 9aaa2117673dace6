"""The run: each account through worker, proof, seal and retention; no account's failure stops another's.

This is where errors end and become results. What people see of them is `report`'s.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from t3_backup.accounts import Account
from t3_backup.backup import legacy_import
from t3_backup.backup.archive import ArchiveOnce
from t3_backup.backup.limits import limits_of
from t3_backup.backup.result import AccountResult
from t3_backup.backup.snapshot import Order, take_snapshot
from t3_backup.errors import Failure, NoRoom, SourceAbsent, explain
from t3_backup.history.maintenance import Maintenance, MaintenanceResult
from t3_backup.history.retention import Policy
from t3_backup.settings import Settings
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.documents import snapshot_document
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store
from t3_backup.t3 import databases
from t3_backup.t3.files import state_database
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.backup import FindDatabase
from t3_backup.worker.protocol import Event, Phase
from t3_backup.worker.supervisor import SourceListener

_FULL = (errno.ENOSPC, errno.EDQUOT)


Listener = Callable[[str, Event], None]


@dataclass(frozen=True)
class Run:
    """What a run needs of everywhere, but for the account."""

    settings: Settings
    store: Store
    label: str | None
    stopping: threading.Event
    listen: Listener
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def limits(self) -> Limits:
        """The limits of one worker."""
        return limits_of(self.settings, self.store.free_bytes, self.store.total_bytes())


def run_backups(job: Run, accounts: Sequence[Account], finished: Callable[[AccountResult], None]) -> list[AccountResult]:
    """Back up every account, `jobs` at a time; `finished` hears of each as it is done. The results in the order of `accounts`."""
    seconds = job.settings.run_timeout(len(accounts))
    until = time.monotonic() + seconds

    def one(account: Account) -> AccountResult:
        began = time.monotonic()
        if time.monotonic() > until:
            result = AccountResult(account.user, "failed", f"not begun: the run is over its {seconds} s")
        elif job.stopping.is_set():
            result = AccountResult(account.user, "failed", "not begun: the run was stopped")
        else:
            result = _result(account, partial(_back_up, job, account))
        result = replace(result, seconds=time.monotonic() - began)
        finished(result)
        return result

    with ThreadPoolExecutor(job.settings.jobs, thread_name_prefix="account") as pool:
        return list(pool.map(one, accounts))


def plan_backups(
    settings: Settings, accounts: Sequence[Account], stopping: threading.Event, finished: Callable[[AccountResult], None]
) -> list[AccountResult]:
    """What a run would do: each source is looked for as its owner, and nothing is written; there may be no store yet."""
    ancestor = next(path for path in (settings.dest, *settings.dest.parents) if path.exists())

    def free_bytes() -> int:
        status = os.statvfs(ancestor)
        return status.f_bavail * status.f_frsize

    status = os.statvfs(ancestor)
    limits = limits_of(settings, free_bytes, status.f_blocks * status.f_frsize)

    def look(account: Account, heard: SourceListener) -> AccountResult:
        try:
            source = client.ask(account, FindDatabase(), limits, stopping, heard)
        except SourceAbsent as absent:
            return AccountResult(account.user, "skipped", str(absent))
        return AccountResult(
            account.user, "planned", f"{state_database(account.home)} ({source.bytes} bytes, -wal {source.wal_bytes})"
        )

    results = []
    for account in accounts:
        heard = SourceListener()
        results.append(_covered(_result(account, partial(look, account, heard)), heard))
        finished(results[-1])
    return results


def _result(account: Account, step: Callable[[], AccountResult]) -> AccountResult:
    try:
        return step()
    except (Failure, OSError) as error:
        return AccountResult(account.user, "failed", explain(error))
    except Exception as error:  # noqa: BLE001 - a mistake of ours must not cost the other accounts their backup
        return AccountResult(account.user, "failed", f"internal error, please report it: {error!r}")


def _covered(result: AccountResult, heard: SourceListener) -> AccountResult:
    """The result, but failed where a database is not copied, whatever came of the one that is."""
    if not heard.uncovered:
        return result
    reasons = [databases.explain(heard.uncovered)]
    if result.outcome == "failed":
        reasons.append(result.reason)
    return replace(result, outcome="failed", reason="; ".join(reasons), uncovered=heard.uncovered)


def _back_up(job: Run, account: Account) -> AccountResult:
    """Take the snapshot of today. What an earlier script left in a folder of the user's own is set aside, and told of."""
    job.listen(account.user, Phase("start", 0))  # whoever is not heard of again, it is known who it was
    order = Order(account, job.limits(), job.label, job.now(), job.stopping, partial(job.listen, account.user))
    legacy_import.set_aside(order, job.store)
    account_dir = job.store.account_dir(account.user, create=True)
    assert account_dir is not None
    with account_dir:
        account_dir.clear()
        heard = SourceListener(order.listen)
        order = replace(order, listen=heard)
        result = _covered(_result(account, partial(_snapshot, job, order, account_dir, heard)), heard)
    return replace(result, warnings=(*legacy_import.tell_waiting(account.user, job.store), *result.warnings))


def _snapshot(job: Run, order: Order, account_dir: AccountDir, heard: SourceListener) -> AccountResult:
    account, before = order.account, account_dir.snapshots()
    maintenance = maintenance_of(account_dir, job.settings, order.limits, job.stopping)
    packing = ArchiveOnce(order, account_dir, before, job.settings.files_limit)
    share = False
    with contextlib.suppress(OSError):  # of a full disk: what is taken takes more room then, or is refused
        share = maintenance.shares()
    one = partial(take_snapshot, companion=packing.companion, share=share)
    early = MaintenanceResult()
    try:
        began = time.monotonic()
        try:
            stored = one(_allowed(order, maintenance, job.settings), account_dir, before)
        except (NoRoom, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _FULL:
                raise
            early = maintenance.tidy(_hold(order, heard))  # what is not to stay anyway makes room
            if not early.made_room:
                raise
            before = account_dir.snapshots()
            try:
                stored = one(_shortened(_allowed(order, maintenance, job.settings), began), account_dir, before)
            except (Failure, OSError) as error:  # what has gone is told of all the same
                told = (*early.warnings, *packing.warnings)
                gone, compacted = tuple(early.pruned), tuple(early.compacted)
                return AccountResult(account.user, "failed", explain(error), pruned=gone, warnings=told, compacted=compacted)
    except SourceAbsent as absent:
        if before:
            return AccountResult(account.user, "failed", f"{absent}, but there are {len(before)} snapshots of it: was it deleted?")
        if heard.uncovered:  # the shelf stays, as that of everybody who has data
            return AccountResult(account.user, "failed", str(absent))
        with contextlib.suppress(OSError):  # not empty: something of somebody else's is there
            os.rmdir(account.user, dir_fd=job.store.fd)
        return AccountResult(account.user, "skipped", str(absent))
    taken = [stored.snapshot]
    warnings = [*_clock_warnings(before, taken[0]), *packing.warnings, *stored.warnings]
    if taken[0].verdict == "damaged" and not stored.unchanged:
        try:
            taken.insert(0, one(_shortened(order, began), account_dir, [*taken, *before], witness=taken[0]).snapshot)
        except (Failure, OSError) as error:
            warnings.append(f"{account.user}: VACUUM INTO, tried as a second witness, failed too: {explain(error)}")
    tidied = MaintenanceResult()
    if taken[0].verdict == "verified":
        tidied = maintenance.tidy(_hold(order, heard))
    return AccountResult(
        account.user,
        "unchanged" if stored.unchanged else "backed_up",
        "; ".join(taken[-1].reasons),
        tuple(snapshot_document(account_dir, snapshot) for snapshot in taken),
        (*early.pruned, *tidied.pruned),
        (*warnings, *tidied.warnings),
        packing.unsaved,
        compacted=(*early.compacted, *tidied.compacted),
        unchanged=stored.unchanged,
    )


def _hold(order: Order, heard: SourceListener) -> str:
    """Why nothing is pruned: where a database is not copied, what there is may be the last of what went into it. Empty: prune.

    A store that was full before anybody was asked has the owner asked now. Raises Failure where that can't be told.
    """
    if not heard.looked:
        with contextlib.suppress(NoRoom):  # it was heard before
            client.ask(order.account, FindDatabase(), order.limits, order.stopping, heard)
    return databases.summary(heard.uncovered) if heard.uncovered else ""


def maintenance_of(account_dir: AccountDir, settings: Settings, limits: Limits, stopping: threading.Event) -> Maintenance:
    """What keeps a shelf in order."""
    return Maintenance(account_dir, Policy.of(settings), settings.compact, limits, stopping, limits.free_bytes())


def _allowed(order: Order, maintenance: Maintenance, settings: Settings) -> Order:
    """The order, with what the account may take."""
    if not settings.max_bytes:
        return order
    return replace(order, limits=replace(order.limits, allowance=settings.max_bytes - maintenance.lasting_bytes()))


def _shortened(order: Order, began: float) -> Order:
    """The order, with what is left of its time since `began` (of time.monotonic())."""
    return replace(order, limits=replace(order.limits, seconds=max(0.0, order.limits.seconds - (time.monotonic() - began))))


def _clock_warnings(before: Sequence[Manifest], taken: Manifest) -> list[str]:
    ahead = [snapshot.name for snapshot in before if snapshot.when > taken.when + timedelta(days=1)]
    return [f"{taken.user}: the clock has gone back: {ahead[0]} is newer than now; nothing is pruned by it"] if ahead else []
