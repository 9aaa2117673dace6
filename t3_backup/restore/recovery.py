"""Recover from restores that were interrupted: the next command that holds the store does."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.backup.limits import limits_of
from t3_backup.errors import Failure, LeftBehind, TryLater, explain
from t3_backup.restore import intent_log
from t3_backup.restore.finish import (
    Recovered,
    describe_remains,
    describe_removal,
    finish_restore,
)
from t3_backup.restore.intent_log import Intent
from t3_backup.settings import Settings
from t3_backup.store.store import Store
from t3_backup.worker import client, left_behind
from t3_backup.worker.limits import LOOK_STALL, Limits
from t3_backup.worker.operations.backup import FindDatabase


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
    "other": "was dropped: what it was to replace is not there any more, and nothing of it is left",
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


def _finish(plan: Intent, store: Store, limits: Limits, *, gone: bool) -> Recovered:
    """Complete or undo one. Raises as `finish_restore` does.

    A home that does not answer keeps nobody waiting for long: what is asked of it fails soon, and a
    server that nothing was taken from runs again.
    """
    if (account := _find_account(plan)) is None:
        return finish_restore(plan, None, store, limits)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(LeftBehind):  # then it gets no worker, and nothing waits
            account = held.enter_context(left_behind.marked(store, account))
        look = replace(limits, stall=LOOK_STALL)
        try:
            client.ask(account, FindDatabase(), look, threading.Event())
        except TryLater:
            limits = look
        except Failure:  # it answers
            pass
        return finish_restore(plan, account, store, limits, gone=gone)


def recover_interrupted(
    store: Store, limits: Limits, warn: Callable[[str], None], restored: str | None = None
) -> list[Unrecovered]:
    """Complete or undo every interrupted restore, under the store's lock, and say so.

    Where a home is not there, that waits until it is; but not of the user who is about to be
    `restored`: then somebody has looked. Return those that are not well since.
    """
    intent_log.clear_intent(store)
    unended = []
    for user in intent_log.users_with_intent(store):
        try:
            plan = intent_log.load_intent(store, user)
            if plan is None:
                continue
            with intent_log.held_store(plan, store) as its_store:
                if its_store is None:  # it runs
                    continue
                ended = _finish(plan, its_store, limits, gone=user == restored)
        except (Failure, OSError) as error:
            why = f"could be neither completed nor undone: {explain(error)}"
            unended.append(Unrecovered(user, f"an interrupted restore {why}", whole=False))
            warn(f"{user}: {unended[-1].reason}")
            continue
        warn(f"{user}: an interrupted restore {_RECOVERED[ended.state]}")
        told = [*ended.warnings, *map(describe_remains, ended.kept)]
        for warning in [*told, *([describe_removal(ended.kept)] if ended.kept else [])]:
            warn(f"{user}: {warning}")
        if ended.server == "failed":
            unended.append(Unrecovered(user, "; ".join(ended.warnings), whole=True))
    return unended
