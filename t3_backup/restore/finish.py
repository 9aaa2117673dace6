"""Finish a restore, wherever it got to, and let the server run again.

It is called by the restore itself, and by the next command where that one died. Again is harmless:
the intent goes last. Once the new state is in place the server runs, and the restore is done,
whatever can't be removed of the old one.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from t3_backup.accounts import Account
from t3_backup.errors import Failure, SourceAbsent, explain
from t3_backup.restore.intent_log import Intent
from t3_backup.store.replacement import STAGED_FILES
from t3_backup.store.store import Store
from t3_backup.system.systemd import Service
from t3_backup.t3.files import state_place
from t3_backup.text import printable, quote
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.archive import InstallArchive, Remains, RemoveReplaced
from t3_backup.worker.operations.restore import RecoverSwap, Swapped

_RENAMES_S = 120.0  # for some renames, while the server is down


@dataclass(frozen=True)
class Recovered:
    """How a restore ended."""

    state: str  # what is in place: one of STATES
    server: str  # none: it was left alone; stopped: and left so, as it was; started; failed
    warnings: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # where what stays of the old state lies, out of place
    missing: tuple[str, ...] = ()  # which files could not be put back, and why


def finish_restore(
    plan: Intent,
    account: Account | None,
    store: Store,
    limits: Limits,
    *,
    gone: bool = False,
) -> Recovered:
    """Complete or undo the restore of `plan`, under the store's lock.

    No `account`: its user is gone, and so is the database. `gone`: a folder of the databases that
    is not there is gone for good; else it may be there again once its disk is mounted. Raises
    Failure and OSError where that needs a person: then the server stays stopped, and the intent
    stays, too. It also stays where the server can't be started: the next command tries it again.
    """
    swapped, warnings = _finish_databases(plan, account, limits, gone=gone)
    state = swapped.state
    missing = _install_files(plan, account, state, store, limits, gone=gone)
    server, trouble = _release_server(plan)
    warnings += [*missing, *trouble]
    if server != "failed" and plan.unit is not None:
        plan = replace(plan, unit=None, ran=False, masked=False)
        with contextlib.suppress(OSError):  # then it is asked to run once more
            plan.save(store)
    if state == "new" and plan.databases and not plan.marked:
        try:
            _mark_restored(store, plan)
            plan = replace(plan, marked=True)
        except (Failure, OSError) as error:
            what = f"{plan.snapshot} could not be marked as put back ({explain(error)})"
            warnings.append(f"{what}: the next snapshot may be suspect")
    remains, again = _remove_replaced(plan, account, state, limits)
    warnings += remains.reasons
    if server == "failed" or again:
        replace(plan, tried=plan.tried or again).save(store)
    else:
        plan.remove(store)
    kept_ones = [one.file for one in plan.databases if one.keep or one.file in swapped.changed]
    names = [file + plan.aside for file in kept_ones if state == "new"]
    kept: tuple[str, ...] = ()
    if account is not None:
        folder = Path(*state_place(str(account.home), str(account.base_dir or "")))
        kept = tuple(str(folder / name) for name in (*names, *remains.left))
    return Recovered(state, server, tuple(warnings), kept, missing)


def _finish_databases(
    plan: Intent, account: Account | None, limits: Limits, *, gone: bool
) -> tuple[Swapped, list[str]]:
    """Complete or undo the exchange.

    Return what is in place, and what somebody should know. Raises Failure and OSError.
    """
    if account is None:
        return Swapped("other"), [f"there is no user {plan.user} any more"]
    if not plan.databases:
        return Swapped("new" if plan.begun else "old"), []
    try:
        recover = RecoverSwap(plan.aside, plan.databases, plan.begun)
        swapped = client.ask(account, recover, limits, threading.Event())
    except SourceAbsent as error:
        if plan.begun and not gone:
            raise _waits_for_home(plan, error) from None
        return Swapped("other"), []  # the folder itself is gone, and all that was in it
    except (Failure, OSError) as error:
        if plan.begun:
            raise
        # Nothing was in place of anything: that must not keep the server from running.
        what = f"staged files may still be next to the databases as *{plan.aside}: {explain(error)}"
        return Swapped("old"), [what]
    what = "the old state is open in another process, so it was kept next to the new one as"
    held = [f"{what} {printable(file)}{plan.aside}" for file in swapped.held]
    return swapped, [*held, *swapped.stuck]


def _waits_for_home(plan: Intent, error: SourceAbsent) -> Failure:
    """Say what to do where the home is not there, and what was begun in it may be."""
    by_hand = f"t3-backup-state restore {quote(plan.user)}"
    return Failure(f"{error}; next: mount it; where it is gone for good: {by_hand}")


def _install_files(
    plan: Intent,
    account: Account | None,
    state: str,
    store: Store,
    limits: Limits,
    *,
    gone: bool,
) -> tuple[str, ...]:
    """Put the files beside the databases in place; return what could not be, and why.

    A server must not wait for it. Where there is none that does, and its worker fails for the first
    time, raises Failure and OSError: the next command tries it again.
    """
    if account is None or state != "new" or not plan.files:
        return ()
    install, few = InstallArchive(plan.staged_files), min(limits.seconds, _RENAMES_S)
    again = f"t3-backup-state restore {quote(plan.user)} --at {plan.snapshot} --only files"
    try:
        missing = client.ask(
            account, install, replace(limits, seconds=few), threading.Event()
        ).missing
        return (*missing, f"to try it again: {again}") if missing else ()
    except SourceAbsent as error:
        if not gone:
            raise _waits_for_home(plan, error) from None
        why = explain(error)
    except (Failure, OSError) as error:
        if not plan.ran and not plan.tried:
            replace(plan, tried=True).save(store)
            raise
        why = explain(error)
    return (f"what is beside the databases could not be put back: {why}; next: {again}",)


def _release_server(plan: Intent) -> tuple[str, list[str]]:
    """Let the server run again, and start it if it ran.

    Return what became of it, and what somebody should know.
    """
    if plan.unit is None:
        return "none", []
    try:
        Service(plan.unit).release(unmask=plan.masked, start=plan.ran)
    except Failure as failure:
        by_hand = f"systemctl unmask --runtime {plan.unit}; systemctl start {plan.unit}"
        then = f"the server is down; the next command tries it again, or: {by_hand}"
        return "failed", [f"{failure}; {then}"]
    return ("started" if plan.ran else "stopped"), []


def _remove_replaced(
    plan: Intent, account: Account | None, state: str, limits: Limits
) -> tuple[Remains, bool]:
    """Remove what was staged or replaced beside the databases; return what stays.

    Whatever is in the way of that: it ends no restore. Return also whether the next command is to
    try it again, since its worker has failed for the first time.
    """
    if account is None or not plan.files:
        return Remains((), ()), False
    remove = RemoveReplaced(plan.staged_files, state == "new", plan.sealed)
    try:
        return client.ask(account, remove, limits.for_files(), threading.Event()), False
    except SourceAbsent:
        return Remains((), ()), False
    except (Failure, OSError) as error:
        left = plan.staged_files + STAGED_FILES
        why = f"{left} could not be removed: {explain(error)}"
        if not plan.tried:
            return Remains((), (f"{why}; the next command tries it again",)), True
        return Remains((left,), (why,)), False


def _mark_restored(store: Store, plan: Intent) -> None:
    """Mark what was put back: what comes after is measured by it.

    A snapshot that is gone meanwhile measures nothing.
    """
    account_dir = store.account_dir(plan.user)
    if account_dir is None:
        return
    with account_dir:
        snapshots = account_dir.read_listing().snapshots
        following = max([0, *(snapshot.sequence for snapshot in snapshots)]) + 1
        for snapshot in snapshots:
            if snapshot.name == plan.snapshot:
                account_dir.replace_manifest(replace(snapshot, restored_since=following))


def describe_remains(path: str) -> str:
    """Say where there is what no snapshot gives back, or what could not be removed or put back."""
    if path.endswith("/new"):
        return f"what could not be put in place is left at {printable(path)}"
    if path.endswith("/gone"):
        return f"what could not be removed of the old state is left at {printable(path)}"
    return f"the part of the old state that no snapshot holds was kept at {printable(path)}"


def describe_removal(paths: Sequence[str]) -> str:
    """Say how root removes what was kept, once nobody needs it."""
    folders = [re.sub(rf"({re.escape(STAGED_FILES)})/\w+$", r"\1", path) for path in paths]
    return f"once nobody needs it: rm -rf {printable(shlex.join(dict.fromkeys(folders)))}"
