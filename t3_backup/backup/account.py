"""Back up one account: take the snapshot, make space where the disk is full, prune and compact.

This is where errors end and become results. What people see of them is up to `output`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from t3_backup.accounts import Account, folder_name
from t3_backup.backup import legacy_import
from t3_backup.backup.archive import ArchiveMaker
from t3_backup.backup.coverage import SourceListener
from t3_backup.backup.limits import limits_of
from t3_backup.backup.order import SnapshotOrder
from t3_backup.backup.result import AccountResult
from t3_backup.backup.shares import Shares
from t3_backup.backup.snapshot import take_snapshot, take_witness
from t3_backup.errors import (
    Failure,
    NoRoom,
    OverQuota,
    SourceAbsent,
    SourceError,
    TryLater,
    WorkerLost,
    explain,
)
from t3_backup.history import chain
from t3_backup.history.maintenance import Maintenance
from t3_backup.history.result import MaintenanceResult
from t3_backup.settings import Settings
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.faults import find_unsound, waiting_faults
from t3_backup.store.leftovers import CatalogCheck, check_catalog, remove_leftovers
from t3_backup.store.listing import Listing
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store
from t3_backup.system.deadline import Deadline
from t3_backup.t3 import databases
from t3_backup.worker import client, left_behind
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.backup import FindDatabase
from t3_backup.worker.protocol import Event, Phase, Silent

_OWN = (SourceError, TryLater, WorkerLost, OverQuota)  # what an account's files may bring about
_FULL = (errno.ENOSPC, errno.EDQUOT)

Listener = Callable[[str, Event], None]


@dataclass(frozen=True)
class BackupRun:
    """What a run needs for every account."""

    settings: Settings
    store: Store
    label: str | None
    stopping: threading.Event
    listen: Listener
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    shares: Shares | None = None  # of the store's room; None: an account may take all of it

    def limits(self) -> Limits:
        """Return the limits of one worker."""
        return limits_of(self.settings, self.store.free_bytes, self.store.total_bytes())


def back_up_account(run: BackupRun, account: Account) -> AccountResult:
    """Take the snapshot of today.

    What an earlier script left in a folder of the user's own is set aside, and told of. Raises
    Failure and OSError.
    """
    # whoever is not heard of again, it is known who it was
    run.listen(account.user, Phase("start", 0))
    order = SnapshotOrder(
        account, run.limits(), run.label, run.now(), run.stopping, partial(run.listen, account.user)
    )
    legacy_import.set_aside(order, run.store)
    account_dir = run.store.account_dir(account.user, create=True)
    assert account_dir is not None
    silent = partial(run.listen, account.user, Silent())
    with account_dir, left_behind.marked(run.store, account, silent) as marked:
        listing = remove_leftovers(account_dir, account_dir.read_listing(), chain.find_needed)
        checked = check_catalog(account_dir, listing)
        heard = SourceListener(account.user, run.settings.ignore, order.listen)
        order = replace(order, account=marked, listen=heard)
        step = partial(_back_up_database, run, order, account_dir, listing, checked, heard)
        unsound = find_unsound(listing.snapshots, account_dir.read_catalog())
        faults = waiting_faults(listing.snapshots, unsound)
        result = fail_uncovered(catch_failure(account, step), heard)
    result = replace(result, lost=checked.lost, catalog_problem=checked.problem)
    waiting = legacy_import.tell_waiting(account.user, run.store)
    told = (f"{account.user} {fault.text}" for fault in faults)
    return replace(result, warnings=(*waiting, *told, *result.warnings))


def _back_up_database(
    run: BackupRun,
    order: SnapshotOrder,
    account_dir: AccountDir,
    listing: Listing,
    checked: CatalogCheck,
    heard: SourceListener,
) -> AccountResult:
    account, before = order.account, listing.snapshots
    maintenance = Maintenance.of(
        account_dir,
        listing,
        run.settings,
        order.limits,
        run.stopping,
        run.shares.doubtful if run.shares else None,
    )
    archive_maker = ArchiveMaker(
        order, account_dir, before, run.settings.files_limit, maintenance.unsound
    )
    share = False
    # of a full disk: what is taken takes more space then, or is refused
    with contextlib.suppress(OSError):
        share = maintenance.shares_extents()
        maintenance = replace(maintenance, known_to_share=share)
    take = partial(take_snapshot, archive_maker=archive_maker, share=share)
    witness = partial(take_witness, archive_maker=archive_maker)
    early = MaintenanceResult(listing)
    try:
        deadline = Deadline.after(order.limits.seconds)
        try:
            published = take(_order_allowed(order, maintenance, run), account_dir, listing)
        except (NoRoom, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _FULL:
                raise
            # what is not to stay anyway makes space
            early = maintenance.tidy(_find_hold(order, checked, heard))
            if not early.freed_space:
                raise
            maintenance = replace(maintenance, listing=early.listing)
            before = early.listing.snapshots
            try:
                again = _order_allowed(order, maintenance, run).until(deadline)
                published = take(again, account_dir, early.listing)
            except (Failure, OSError) as error:  # what has gone is told of all the same
                told = (*early.warnings, *archive_maker.warnings)
                gone, compacted = tuple(early.pruned), tuple(early.compacted)
                return AccountResult(
                    account.user,
                    "failed",
                    explain(error),
                    own=isinstance(error, _OWN),
                    pruned=gone,
                    warnings=told,
                    compacted=compacted,
                )
    except SourceAbsent as absent:
        if before or checked.lost:
            count = len(before) + len(checked.lost)
            are = "are" if before else "were"
            return AccountResult(
                account.user,
                "failed",
                f"{absent}, but there {are} {count} snapshots of it: was it deleted?",
                own=True,
            )
        if heard.failures:  # the folder stays, as that of everybody who has data
            return AccountResult(account.user, "failed", str(absent), own=True)
        with contextlib.suppress(OSError):  # not empty: something of somebody else's is there
            os.rmdir(folder_name(account.user), dir_fd=run.store.fd)
        return AccountResult(account.user, "skipped", str(absent))
    listing, taken, unchanged = published.listing, [published.snapshot], published.unchanged
    warnings = [*_clock_warnings(before, taken[0]), *archive_maker.warnings, *published.warnings]
    if taken[0].live.verdict == "damaged" and not unchanged:
        try:
            second = witness(order.until(deadline), account_dir, listing, taken[0])
            listing = second.listing
            taken.insert(0, second.snapshot)
        except (Failure, OSError) as error:
            warnings.append(
                f"{account.user}: VACUUM INTO, tried as a second witness, failed too: "
                f"{explain(error)}"
            )
    tidied = MaintenanceResult(listing)
    if taken[0].verdict in ("verified", "unproven"):
        tidied = replace(maintenance, listing=listing).tidy(_find_hold(order, checked, heard))
    elif not unchanged:
        tidied = replace(maintenance, listing=listing).limit_doubtful()
    return AccountResult(
        account.user,
        "unchanged" if unchanged else "backed_up",
        "; ".join(taken[-1].reasons),
        tuple(map(tidied.listing.stored_snapshot, taken)),
        (*early.pruned, *tidied.pruned),
        (*warnings, *tidied.warnings),
        archive_maker.unsaved,
        archive_maker.not_packed,
        compacted=(*early.compacted, *tidied.compacted),
        unchanged=unchanged,
        unproven=_find_new_doubt(before, taken[-1]),
        listing=None if tidied.stale else tidied.listing,
    )


def _find_new_doubt(before: Sequence[Manifest], taken: Manifest) -> str:
    """Tell why a snapshot could not be judged, where the one before it does not say the same.

    Empty where it was judged, or nothing of it is new: one alarm is enough.
    """
    if taken.verdict != "unproven":
        return ""
    earlier = (one for one in before if one.sequence <= taken.sequence)
    newest = max(earlier, key=lambda one: one.sequence, default=None)
    if newest is not None and (newest.verdict, newest.reasons) == (taken.verdict, taken.reasons):
        return ""
    return "; ".join(taken.reasons)


def _find_hold(order: SnapshotOrder, checked: CatalogCheck, heard: SourceListener) -> str:
    """Tell why nothing may be pruned; empty where pruning may go on.

    Where a snapshot was lost, others may be the last that hold what was in it. Where a database is
    not copied, what there is may be the last of what went into it. A store that was full before
    anybody was asked has the owner asked now. Raises Failure where that can't be told.
    """
    if checked.lost:
        return f"{checked.lost[0]} is lost"
    if not heard.looked:
        with contextlib.suppress(NoRoom):  # it was heard before
            client.ask(order.account, FindDatabase(), order.limits, order.stopping, heard)
    return databases.summary(heard.uncovered) if heard.uncovered else ""


def _order_allowed(order: SnapshotOrder, maintenance: Maintenance, run: BackupRun) -> SnapshotOrder:
    """Return the order with what the account may take."""
    limits, most = order.limits, run.settings.max_bytes
    if most == 0 or (most is None and run.shares is None):
        return order
    taken = maintenance.lasting_bytes()
    if most is not None:
        allowance: int | None = most - taken
    else:
        assert run.shares is not None
        allowance = run.shares.allowance(taken, limits.free_bytes() - limits.reserve)
    return replace(order, limits=replace(limits, allowance=allowance))


def _clock_warnings(before: Sequence[Manifest], taken: Manifest) -> list[str]:
    ahead = [snapshot.name for snapshot in before if snapshot.when > taken.when + timedelta(days=1)]
    if not ahead:
        return []
    why = f"the clock has gone back: {ahead[0]} is newer than now; nothing is pruned by it"
    return [f"{taken.user}: {why}"]


def catch_failure(account: Account, step: Callable[[], AccountResult]) -> AccountResult:
    """Take a step for an account; an error becomes its result."""
    try:
        return step()
    except (Failure, OSError) as error:
        own = isinstance(error, _OWN)
        return AccountResult(account.user, "failed", explain(error), own=own)
    except Exception as error:  # noqa: BLE001 - a mistake of ours must not cost the other accounts their backup
        return AccountResult(account.user, "failed", f"internal error, please report it: {error!r}")


def fail_uncovered(result: AccountResult, heard: SourceListener) -> AccountResult:
    """Return the result, but failed where something is not copied.

    Whatever came of what is. What was copied though nobody can write to it is told of.
    """
    obstacles = () if result.outcome == "failed" else heard.obstacles
    warnings = tuple(f"{result.user}: {one}" for one in (*heard.warnings, *obstacles))
    reason = "; ".join(filter(None, (result.reason, *obstacles)))
    result = replace(result, reason=reason, warnings=(*result.warnings, *warnings))
    if not heard.failures:
        return result
    reasons = [*heard.failures, *([result.reason] if result.outcome == "failed" else [])]
    return replace(result, outcome="failed", reason="; ".join(reasons), uncovered=heard.uncovered)
