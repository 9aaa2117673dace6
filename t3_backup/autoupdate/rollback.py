"""Back to an earlier version by hand, days later, with the data of then; and the way back from that.

What is lost is said first. What there was is kept as a snapshot, with which `undo` puts both back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from t3_backup.autoupdate import journal, preflight, snapshots, transition, upgrade
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.errors import Failure
from t3_backup.t3 import versions


@dataclass(frozen=True)
class Plan:
    """What would be done with one account, for a person to decide."""

    move: Move
    lines: tuple[str, ...]
    has_data: bool = True  # else there is no database yet: nothing to keep, and nothing that could not be opened


def plan_back(machine: Context, users: Sequence[str], version: str | None) -> tuple[list[Plan], list[str]]:
    """How each of `users` would get to `version`, or to the one that he was on before; and why some can't.

    One who can't keeps nobody else from it. Raises Failure where there is nobody left.
    """
    plans, left = [], []
    for user in users:
        try:
            plan = _plan_one(machine, user, version)
        except Failure as failure:
            left.append(str(failure))
            continue
        # The same version is one to go back to, where a newer t3 was called on its database.
        if plan.move.data is not None or plan.move.program != plan.move.before:
            plans.append(plan)
    if not plans:
        nothing = "nobody is on a higher version than before, or of a higher level than his version: nothing to go back from"
        raise Failure("; ".join(dict.fromkeys(left)) or nothing)
    return plans, left


def _plan_one(machine: Context, user: str, version: str | None) -> Plan:
    current = machine.program_of(user)
    target = version or _before(machine, user, current)
    if versions.version_key(target) > versions.version_key(current):
        raise Failure(f"{user} is on {current}, below {target}: t3-autoupdate --to {target}")
    return _plan(machine, user, current, target)


def _before(machine: Context, user: str, current: str) -> str:
    """The version that a user came from, by the history; else the newest one on the disk that is lower."""
    for one in machine.journals.history():
        for step in one.moves:
            if step.user == user and step.phase == journal.DONE and step.program == current:
                return step.before
    lower = [one for one in machine.programs.installed() if versions.version_key(one) < versions.version_key(current)]
    return lower[-1] if lower else current


def _plan(machine: Context, user: str, current: str, target: str) -> Plan:
    if not machine.programs.is_installed(target):
        there = ", ".join(machine.programs.installed()) or "none"
        raise Failure(f"{user}: T3 {target} is not in {machine.programs.prefix(target).parent}; there are: {there}")
    level = machine.programs.about(target).level
    if level is None:
        raise Failure(f"{user}: it is not known which database T3 {target} can open; put one back by hand: t3-backup-state restore")
    instance = machine.instance(user)
    live = instance.look()
    if live is None and (why := machine.why_gone(instance)):
        raise Failure(f"{user}: {why}")
    wanted = Move(user, current, target, f"{snapshots.LEFT}{target}")
    if live is None:
        return Plan(wanted, (f"{user}: from {current} back to {target}; there is no database yet",), has_data=False)
    if live.level is None or live.level <= level:
        return Plan(wanted, (f"{user}: from {current} back to {target}; the database stays, it is of level {live.level}",))
    snapshot, rows = machine.backups.newest_for(user, level)
    then = f"the data of {snapshot.taken_at} (level {snapshot.t3_level}, {snapshot.name})"
    undo = f"it is kept as a snapshot {wanted.label}, and t3-autoupdate rollback --undo brings it back"
    lines = (
        f"{user}: from {current} back to {target}, with {then}",
        f"{user}: will be lost: {_lost(rows, snapshot.rows)}; {undo}",
    )
    return Plan(replace(wanted, data=snapshot.name), lines)


def _lost(live: Mapping[str, int] | None, then: Mapping[str, int]) -> str:
    return "what was written since; the live database can't be counted" if live is None else snapshots.lost(live, then)


def plan_undo(machine: Context, user: str | None = None) -> list[Plan]:
    """How the last rollback (of `user`) would be undone: the program and the data of before it. Raises Failure."""
    rollbacks = (one for one in machine.journals.history() if one.kind == "rollback")
    last = next((one for one in rollbacks if user is None or any(step.user == user for step in one.moves)), None)
    if last is None:
        raise Failure(f"there was no rollback{f' of {user}' if user else ''} that could be undone")
    plans = []
    for step in last.moves:
        if step.phase != journal.DONE or user not in (None, step.user):
            continue
        if machine.program_of(step.user) != step.program or step.kept is None:
            raise Failure(f"{step.user} is not on {step.program} any more: the rollback of {last.began} can't be undone")
        wanted = Move(step.user, step.program, step.before, f"preundo-{step.program}", data=step.kept if step.data else None)
        text = f"{step.user}: from {step.program} to {step.before} again, with the data of {step.kept}"
        plans.append(Plan(wanted, (text,)))
    if not plans:
        raise Failure(f"the rollback of {last.began} changed nothing")
    return plans


def carry_out(machine: Context, plans: Sequence[Plan], kind: str, agreed: Callable[[], None]) -> None:
    """Say what would be done, have it agreed to, do it.

    Raises Failure where an account could not be, and Cancelled where it was stopped; the rest stay as they are.
    """
    for plan in plans:
        for line in plan.lines:
            machine.say(line)
    preflight.must_be_told_apart([machine.instance(plan.move.user) for plan in plans])
    agreed()
    machine.settle_newcomers()
    if (open_ := machine.journals.load()) is not None:
        _close(machine, open_)
    for plan in plans:
        if not plan.has_data:
            if machine.instance(plan.move.user).look() is not None:
                raise Failure(f"{plan.move.user} has a database by now: look at it again, by --dry-run")
            machine.programs.link(plan.move.user, plan.move.program)
            machine.say(f"{plan.move.user}: on {plan.move.program}; there is no database yet")
    moves = tuple(plan.move for plan in plans if plan.has_data)
    if not moves:
        machine.follow()
        return
    under_way = Journal(kind, moves[0].program, upgrade.now(), moves)
    machine.journals.save(under_way)
    for wanted in moves:
        machine.must_go_on("whoever is left stays where he is")
        under_way = machine.carry(under_way, wanted, transition.begin_transition)
        [done] = [one for one in under_way.moves if one.user == wanted.user]
        if done.phase != journal.DONE:
            if done.phase not in journal.UNDER_WAY:
                machine.end(under_way, "failed", upgrade.now())
            raise Failure(f"{done.user}: {kind} to {done.program} failed: {done.reason}")
    machine.end(under_way, "done", upgrade.now())


def _close(machine: Context, left: Journal) -> None:
    """A bump with deferred accounts ends here: they stay where they are. Raises Failure where one is under way."""
    if left.users(*journal.UNDER_WAY):
        raise Failure(f"the {left.kind} to {left.version} is under way: t3-autoupdate resume")
    machine.end(left, "stopped", upgrade.now())
