"""Plan a rollback to an earlier version with the data of then, and its undo; nothing is changed.

What will be lost is said first. What there was is kept as a snapshot, with which an undo puts both
back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from t3_backup.autoupdate import journal, preflight, snapshots
from t3_backup.autoupdate.activity import count_rows
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate import learn
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.programs.own_program import why_left_alone
from t3_backup.errors import Failure
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import versions
from t3_backup.t3.servers import Server
from t3_backup.text import quote


@dataclass(frozen=True)
class Plan:
    """What would be done with one account, for a person to decide."""

    move: Move
    lines: tuple[str, ...]
    has_data: bool = True  # else there is no database yet, and nothing to keep


def plan_rollback(
    context: Context, users: Sequence[str], version: str | None
) -> tuple[list[Plan], list[str]]:
    """Plan how `users` get to `version`, or to the one before; say why some can't.

    An account that can't keeps no other from it. Raises Failure where none is left.
    """
    plans, left = [], []
    for user in users:
        try:
            plan = _plan_account(context, user, version)
        except Failure as failure:
            left.append(str(failure))
            continue
        # The same version is one to go back to, where a newer t3 was called on its database.
        if plan.move.data is not None or plan.move.program != plan.move.before:
            plans.append(plan)
    if not plans:
        none = "no account is on a newer version than before, or has a database of a newer one"
        raise Failure("; ".join(dict.fromkeys(left)) or f"{none}: nothing to roll back")
    return plans, left


def _plan_account(context: Context, user: str, version: str | None) -> Plan:
    current = context.installations.version_of(user)
    target = version or _find_version_before(context, user, current)
    if versions.version_key(target) > versions.version_key(current):
        raise Failure(f"{user} is on {current}, below {target}: t3-autoupdate --to {target}")
    return _plan_move(context, user, current, target)


def _find_version_before(context: Context, user: str, current: str) -> str:
    """Find the version that a user came from, or the newest lower one on the disk."""
    if (came_from := find_before(context.journals.history(), user, current)) is not None:
        return came_from
    there = context.installations.installed_versions()
    mine = versions.version_key(current)
    return next((one for one in reversed(there) if versions.version_key(one) < mine), current)


def find_before(history: Sequence[Journal], user: str, current: str) -> str | None:
    """Find the lower version from which a user came up to the `current` one. Pure.

    `history` has the newest first. What a rollback came from is for its undo.
    """
    moves = (step for entry in history for step in entry.moves if step.user == user)
    for step in moves:
        arrived = step.phase == journal.DONE and step.program == current
        if arrived and versions.is_lower(step.before, current):
            return step.before
    return None


def _plan_move(context: Context, user: str, current: str, target: str) -> Plan:
    if not context.installations.is_installed(target):
        there = ", ".join(context.installations.installed_versions()) or "none"
        where = context.installations.prefix(target).parent
        raise Failure(f"{user}: T3 {target} is not in {where}; there are: {there}")
    program = learn.learn_about(context, target)
    server = context.server(user)
    if why := why_left_alone(server, context.installations):
        raise Failure(why)
    live = server.read_activity()
    if live is None and (why := preflight.why_no_database(server, context.snapshots)):
        raise Failure(f"{user}: {why}")
    wanted = Move(user, current, target, f"{snapshots.LEFT}{target}")
    back = f"{user}: from {current} back to {target}"
    if live is None:
        return Plan(wanted, (f"{back}; there is no database yet",), has_data=False)
    now_there = live.of_program(context.installations.about(current).database)
    if now_there is None or not program.why_unfit(
        now_there.file, now_there.level, now_there.ledger
    ):
        return Plan(
            wanted, (f"{back}; the database stays, it is of level {(now_there or live).level}",)
        )
    snapshot = context.snapshots.find_fitting(user, program)
    then = f"the data of {snapshot.taken_at} (level {snapshot.live.t3_level}, {snapshot.name})"
    lost = _describe_loss(server, now_there.file, snapshot)
    kept = f"it is kept as a snapshot {wanted.label}"
    undo = f"{kept}, and t3-autoupdate rollback --undo brings it back"
    lines = (f"{back}, with {then}", f"{user}: will be lost: {lost}; {undo}")
    return Plan(replace(wanted, data=snapshot.name), lines)


def _describe_loss(server: Server, file: str, snapshot: Manifest) -> str:
    """Say what of a live database would be lost for a snapshot. Raises Failure."""
    found = count_rows(server.account, file)
    if found is None:
        return "what was written since; the live database can't be counted"
    return snapshots.describe_loss(found, snapshot.live.census)


def plan_undo(context: Context, user: str | None = None) -> tuple[list[Plan], list[str]]:
    """Plan how the last rollback (of `user`) is undone, program and data; say for whom it can't be.

    That is the newest of which anybody's can be undone: one that failed or changed nothing since
    doesn't count. Raises Failure where there is none.
    """
    history = context.journals.history()
    users = [user] if user is not None else _users_of(history)
    found = {one: found for one in users if (found := find_undone(history, one)) is not None}
    if not found:
        raise Failure(f"there was no rollback{f' of {user}' if user else ''} that could be undone")
    plans, left = [], list[str]()
    for entry in history:
        for step in entry.moves:
            if found.get(step.user) != (entry.began, step):
                continue
            if context.installations.version_of(step.user) != step.program:
                why = f"{step.user} is not on {step.program} any more"
                left.append(f"{why}: the rollback of {entry.began} can't be undone")
                continue
            if step.data is not None and not _is_kept(context, step):
                what = f"{step.kept}, which the rollback of {entry.began} has left, is gone"
                look = f"t3-backup-state list {quote(step.user)}"
                left.append(f"{step.user}: {what}: it can't be undone; next: {look}")
                continue
            plans.append(_plan_back(context, step))
        if plans:
            return plans, left
    raise Failure("; ".join(left))


def _users_of(history: Sequence[Journal]) -> list[str]:
    return list(dict.fromkeys(step.user for entry in history for step in entry.moves))


def find_undone(history: Sequence[Journal], user: str) -> tuple[str, Move] | None:
    """Find the rollback of an account that an undo is of, and when it began.

    It is the newest that was done, unless it was undone, or the account was moved on since. Pure.
    """
    undone = 0
    for entry in history:
        for step in entry.moves:
            if step.user != user or step.phase != journal.DONE:
                continue
            if entry.kind == "bump":
                return None
            if entry.kind == "undo":
                undone += 1
            elif undone:
                undone -= 1
            elif step.kept is not None:
                return entry.began, step
    return None


def _is_kept(context: Context, step: Move) -> bool:
    """Tell whether the snapshot of what a move left is there still. Raises Failure."""
    return any(one.name == step.kept for one in context.snapshots.list_snapshots(step.user))


def _plan_back(context: Context, step: Move) -> Plan:
    """Plan the opposite of a move that was done."""
    label, data = f"preundo-{step.program}", step.kept if step.data else None
    wanted = Move(step.user, step.program, step.before, label, data)
    back = f"{step.user}: from {step.program} to {step.before} again"
    lines = [f"{back}, with the data of {step.kept}"]
    if data is not None:
        lost = _describe_loss_of_undo(context, step)
        lines.append(f"{step.user}: will be lost: {lost}; it is kept as a snapshot {label}")
    return Plan(wanted, tuple(lines))


def _describe_loss_of_undo(context: Context, step: Move) -> str:
    """Say what was done since a rollback, as far as it can be counted: an undo does not need it."""
    with suppress(Failure):
        server = context.server(step.user)
        own = context.installations.about(step.program).database
        live = server.read_activity()
        there = None if live is None else live.of_program(own)
        known = {one.name: one for one in context.snapshots.list_snapshots(step.user)}
        if there is not None and (snapshot := known.get(step.kept or "")) is not None:
            return _describe_loss(server, there.file, snapshot)
    return "what was written since the rollback, which can't be counted"
