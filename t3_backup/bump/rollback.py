"""Back to an earlier version by hand, days later, with the data of then; and the way back from that.

What is lost is said first. What there was is kept as a snapshot, with which `undo` puts both back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from t3_backup.bump import backups, bumping, journal, move, versions
from t3_backup.bump.journal import Journal, Move
from t3_backup.bump.machine import Machine
from t3_backup.errors import Failure


@dataclass(frozen=True)
class Plan:
    """What would be done with one account, for a person to decide."""

    move: Move
    lines: tuple[str, ...]


def plan_back(machine: Machine, users: Sequence[str], version: str | None) -> list[Plan]:
    """How each of `users` would get to `version`, or to the one that he was on before. Raises Failure."""
    plans = []
    for user in users:
        current = machine.program_of(user)
        target = version or _before(machine, user, current)
        if versions.key(target) > versions.key(current):
            raise Failure(f"{user} is on {current}, below {target}: t3-autoupdate --to {target}")
        # The same version is one to go back to, where a newer t3 was called on its database.
        plan = _plan(machine, user, current, target)
        if plan.move.data is not None or target != current:
            plans.append(plan)
    if not plans:
        raise Failure("nobody is on a higher version than before, or of a higher level than his version: nothing to go back from")
    return plans


def _before(machine: Machine, user: str, current: str) -> str:
    """The version that a user came from, by the history; else the newest one on the disk that is lower."""
    for one in machine.journals.history():
        for step in one.moves:
            if step.user == user and step.phase == journal.DONE and step.program == current:
                return step.before
    lower = [one for one in machine.programs.installed() if versions.key(one) < versions.key(current)]
    return lower[-1] if lower else current


def _plan(machine: Machine, user: str, current: str, target: str) -> Plan:
    if not machine.programs.is_installed(target):
        raise Failure(f"{user}: T3 {target} is not on the disk any more: {machine.programs.prefix(target)}")
    level = machine.programs.about(target).level
    if level is None:
        raise Failure(f"{user}: it is not known which database T3 {target} can open; put one back by hand: t3-backup-state restore")
    live = machine.instance(user).look()
    wanted = Move(user, current, target, f"{backups.LEFT}{target}")
    if live is None or live.level is None or live.level <= level:
        return Plan(wanted, (f"{user}: from {current} back to {target}; the database stays, it is of level {live and live.level}",))
    snapshot, rows = machine.backups.newest_for(user, level)
    then = f"the data of {snapshot.taken_at} (level {snapshot.t3_level}, {snapshot.name})"
    undo = f"it is kept as a snapshot {wanted.label}, and t3-autoupdate rollback --undo brings it back"
    lines = (
        f"{user}: from {current} back to {target}, with {then}",
        f"{user}: will be lost: {_lost(rows, snapshot.rows)}; {undo}",
    )
    return Plan(replace(wanted, data=snapshot.name), lines)


def _lost(live: Mapping[str, int] | None, then: Mapping[str, int]) -> str:
    return "what was written since; the live database can't be counted" if live is None else backups.lost(live, then)


def plan_undo(machine: Machine) -> list[Plan]:
    """How the last rollback would be undone: the program and the data of before it. Raises Failure."""
    last = next((one for one in machine.journals.history() if one.kind == "rollback"), None)
    if last is None:
        raise Failure("there was no rollback that could be undone")
    plans = []
    for step in last.moves:
        if step.phase != journal.DONE:
            continue
        if machine.program_of(step.user) != step.program or step.kept is None:
            raise Failure(f"{step.user} is not on {step.program} any more: the rollback of {last.began} can't be undone")
        wanted = Move(step.user, step.program, step.before, f"preundo-{step.program}", data=step.kept if step.data else None)
        text = f"{step.user}: from {step.program} to {step.before} again, with the data of {step.kept}"
        plans.append(Plan(wanted, (text,)))
    if not plans:
        raise Failure(f"the rollback of {last.began} changed nothing")
    return plans


def carry_out(machine: Machine, plans: Sequence[Plan], kind: str, agreed: Callable[[], None]) -> None:
    """Say what would be done, have it agreed to, do it.

    Raises Failure where an account could not be, and Cancelled where it was stopped; the rest stay as they are.
    """
    for plan in plans:
        for line in plan.lines:
            machine.say(line)
    agreed()
    machine.settle_newcomers()
    if (open_ := machine.journals.load()) is not None:
        _close(machine, open_)
    moves = tuple(plan.move for plan in plans)
    now = bumping.now()
    under_way = Journal(kind, moves[0].program, now, moves)
    machine.journals.save(under_way)
    for wanted in moves:
        machine.must_go_on("whoever is left stays where he is")
        under_way = machine.carry(under_way, wanted, move.go)
        [done] = [one for one in under_way.moves if one.user == wanted.user]
        if done.phase != journal.DONE:
            if done.phase not in journal.UNDER_WAY:
                machine.end(under_way, "failed", bumping.now())
            raise Failure(f"{done.user}: {kind} to {done.program} failed: {done.reason}")
    machine.end(under_way, "done", bumping.now())


def _close(machine: Machine, left: Journal) -> None:
    """A bump with deferred accounts ends here: they stay where they are. Raises Failure where one is under way."""
    if left.users(*journal.UNDER_WAY):
        raise Failure(f"the {left.kind} to {left.version} is under way: t3-autoupdate resume")
    machine.end(left, "stopped", bumping.now())
