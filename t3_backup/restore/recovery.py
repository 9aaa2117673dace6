"""Finish a restore, wherever it got to, and let the server run again.

It is called by the restore itself, and by the next command where that one died. Again is harmless:
the intent goes last.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.backup.limits import limits_of
from t3_backup.errors import Failure, SourceAbsent, explain
from t3_backup.restore import intent_log
from t3_backup.restore.intent_log import Intent
from t3_backup.settings import Settings
from t3_backup.store.store import Store
from t3_backup.system.systemd import Service
from t3_backup.t3.files import state_place
from t3_backup.text import printable
from t3_backup.worker import client
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.archive import InstallArchive, Installed
from t3_backup.worker.operations.restore import RecoverSwap

_NOTHING = Installed((), (), ())


@dataclass(frozen=True)
class Recovered:
    """How a restore ended."""

    state: str  # what is in place: one of STATES
    server: str  # none: it was left alone; stopped: and left so, as it was; started; failed
    warnings: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # where what can't be given back of the old state lies, out of place
    missing: tuple[str, ...] = ()  # which files could not be put back, and why


def finish_restore(
    plan: Intent, account: Account | None, store: Store, limits: Limits
) -> Recovered:
    """Complete or undo the restore of `plan`, under the store's lock.

    No `account`: its user is gone, and so is the database. Raises Failure and OSError where that
    needs a person: then the server stays stopped, and the intent stays, too. It also stays where
    the server can't be started: the next command tries it again.
    """
    try:
        state, warnings, files, changed = _finish_files(plan, account, limits)
    except (Failure, OSError) as error:
        if plan.begun:
            raise
        # Nothing was in place of anything: that must not keep the server from running.
        what = f"staged files may still be next to the databases as *{plan.aside}: {explain(error)}"
        state, warnings, files, changed = "old", [what], _NOTHING, ()
    server, trouble = _release_server(plan)
    warnings += trouble
    if state == "new" and plan.databases and not plan.marked:
        try:
            _mark_restored(store, plan)
            plan = replace(plan, marked=True)
        except (Failure, OSError) as error:
            what = f"{plan.snapshot} could not be marked as put back ({explain(error)})"
            warnings.append(f"{what}: the next snapshot may be suspect")
    if server == "failed":
        plan.save(store)
    else:
        plan.remove(store)
    kept_ones = [one.file for one in plan.databases if one.keep or one.file in changed]
    names = [file + plan.aside for file in kept_ones if state == "new"]
    kept: tuple[str, ...] = ()
    if account is not None:
        folder = Path(*state_place(str(account.home), str(account.base_dir or "")))
        kept = tuple(str(folder / name) for name in (*names, *files.left))
    return Recovered(state, server, tuple(warnings), kept, files.missing)


def _finish_files(
    plan: Intent, account: Account | None, limits: Limits
) -> tuple[str, list[str], Installed, Sequence[str]]:
    """Finish what is beneath the home.

    Return what is in place, what somebody should know, which files stay, and which of the old
    databases, since they are not what was sealed.
    """
    state, warnings, files = ("new" if plan.begun else "old"), list[str](), _NOTHING
    changed: Sequence[str] = ()
    if account is None:
        return "other", [f"there is no user {plan.user} any more"], files, changed
    try:
        if plan.databases:
            recover = RecoverSwap(plan.aside, plan.databases, plan.begun)
            swapped = client.ask(account, recover, limits, threading.Event())
            state, changed = swapped.state, swapped.changed
            what = "the old state is open in another process, so it was kept next to the new one as"
            warnings += [f"{what} {printable(file)}{plan.aside}" for file in swapped.held]
        if plan.files:
            install = InstallArchive(plan.staged_files, state == "new", plan.sealed)
            files = client.ask(account, install, limits, threading.Event())
            warnings += [*files.missing, *files.reasons]
    except SourceAbsent:
        state = "other"  # the folder itself is gone, and all that was in it
    return state, warnings, files, changed


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


def _find_account(plan: Intent) -> Account | None:
    """Find whose restore it was, with the databases where they were then."""
    if os.geteuid() != 0:
        found = accounts.own()
    elif accounts.exists(plan.user):
        found = accounts.find(plan.user)
    else:
        return None
    return replace(found, base_dir=None if plan.base_dir is None else Path(plan.base_dir))


_RECOVERED = {
    "new": "was completed",
    "old": "was undone",
    "other": "was dropped: it left no files, and another database is there now",
}


@dataclass(frozen=True)
class Unrecovered:
    """An interrupted restore that is not well yet."""

    user: str
    reason: str
    whole: bool  # whether a whole state is in place, and the server alone is down


def restore_limits(values: Settings, store: Store) -> Limits:
    """Return the limits of each step of a restore.

    No sign of life comes from a worker within one system call, and a large file takes its time.
    """
    return replace(limits_of(values, store.free_bytes, store.total_bytes()), stall=values.timeout)


def recover_interrupted(
    store: Store, limits: Limits, warn: Callable[[str], None]
) -> list[Unrecovered]:
    """Complete or undo every interrupted restore, under the store's lock, and say so.

    Return those that are not well since.
    """
    intent_log.clear_intent(store)
    unended = []
    for user in intent_log.users_with_intent(store):
        try:
            plan = intent_log.load_intent(store, user)
            if plan is None:
                continue
            ended = finish_restore(plan, _find_account(plan), store, limits)
        except (Failure, OSError) as error:
            why = f"could be neither completed nor undone: {explain(error)}"
            unended.append(Unrecovered(user, f"an interrupted restore {why}", whole=False))
            warn(f"{user}: {unended[-1].reason}")
            continue
        warn(f"{user}: an interrupted restore {_RECOVERED[ended.state]}")
        for warning in (*ended.warnings, *map(describe_remains, ended.kept)):
            warn(f"{user}: {warning}")
        if ended.server == "failed":
            unended.append(Unrecovered(user, "; ".join(ended.warnings), whole=True))
    return unended


def describe_remains(path: str) -> str:
    """Say where there is what no snapshot gives back."""
    return f"the part of the old state that no snapshot holds was kept at {printable(path)}"
