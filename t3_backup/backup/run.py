"""Run the backups of all accounts, or plan them; no account's failure stops another's."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from t3_backup.accounts import Account
from t3_backup.backup.account import BackupRun, back_up_account, catch_failure, fail_uncovered
from t3_backup.backup.coverage import SourceListener
from t3_backup.backup.limits import limits_of
from t3_backup.backup.result import AccountResult
from t3_backup.backup.shares import Shares
from t3_backup.backup.slots import MOST_BESIDE, Slots
from t3_backup.errors import SourceAbsent
from t3_backup.settings import Settings
from t3_backup.system.deadline import Deadline
from t3_backup.t3 import databases
from t3_backup.t3.files import state_place
from t3_backup.worker import client, installed
from t3_backup.worker.operations.backup import FindDatabase
from t3_backup.worker.protocol import Event, Silent
from t3_backup.worker.sources import Source


def run_backups(
    run: BackupRun, accounts: Sequence[Account], finished: Callable[[AccountResult], None]
) -> list[AccountResult]:
    """Back up every account, `jobs` at a time.

    One whose worker is silent, or that takes long, goes on beside the others: whatever its user
    has mounted or piled up, the others have their turn. The results are in the order of `accounts`.
    `finished` hears of each account as it is done. Raises Upgraded where the package was, and not
    all were done before.
    """
    if run.settings.max_bytes is None:
        run = replace(run, shares=Shares.measure(run.store, len(accounts), run.limits().reserve))
    seconds = run.settings.run_timeout(len(accounts))
    deadline, slots = Deadline.after(seconds), Slots(run.settings.jobs)

    def listen(user: str, event: Event) -> None:
        if isinstance(event, Silent):
            slots.give_back(user)
        else:
            run.listen(user, event)

    heard = replace(run, listen=listen)

    def back_up_one(account: Account) -> AccountResult:
        began = time.monotonic()
        try:
            if deadline.passed():
                result = AccountResult(
                    account.user, "failed", f"not started: the run has used up its {seconds} s"
                )
            elif run.stopping.is_set():
                result = AccountResult(account.user, "failed", "not started: the run was stopped")
            else:
                result = catch_failure(account, partial(back_up_account, heard, account))
            if result.alarms:  # a worker of another version says nothing of the account
                installed.require_same()
            result = replace(result, seconds=time.monotonic() - began)
            finished(result)
        finally:
            slots.finish(account.user)
        return result

    with ThreadPoolExecutor(run.settings.jobs + MOST_BESIDE, "account") as pool:
        started = []
        for account in accounts:
            slots.take(account.user)
            started.append(pool.submit(back_up_one, account))
        return [one.result() for one in started]


def plan_backups(
    settings: Settings,
    accounts: Sequence[Account],
    stopping: threading.Event,
    finished: Callable[[AccountResult], None],
) -> list[AccountResult]:
    """Plan a run: look for each source as its owner, and write nothing.

    There may be no store yet.
    """
    ancestor = next(path for path in (settings.dest, *settings.dest.parents) if path.exists())

    def free_bytes() -> int:
        status = os.statvfs(ancestor)
        return status.f_bavail * status.f_frsize

    status = os.statvfs(ancestor)
    limits = limits_of(settings, free_bytes, status.f_blocks * status.f_frsize)

    def plan_account(account: Account, heard: SourceListener) -> AccountResult:
        try:
            source = client.ask(account, FindDatabase(), limits, stopping, heard)
        except SourceAbsent as absent:
            return AccountResult(account.user, "skipped", str(absent))
        return AccountResult(account.user, "planned", _describe_plan(account, source))

    results = []
    for account in accounts:
        heard = SourceListener(account.user, settings.ignore)
        results.append(
            fail_uncovered(catch_failure(account, partial(plan_account, account, heard)), heard)
        )
        finished(results[-1])
    return results


def _describe_plan(account: Account, source: Source) -> str:
    """Name each database that would be copied, with its sizes, and those that can't be."""
    folder = Path(*state_place(str(account.home), str(account.base_dir or "")))
    copied = [
        f"{folder / one.file} ({one.bytes} bytes, -wal {one.wal_bytes})" for one in source.usable
    ]
    refused = [
        f"but not {databases.shown_name(one.file)}: {one.problem}"
        for one in source.databases
        if one.problem
    ]
    return "; ".join([*copied, *refused])
