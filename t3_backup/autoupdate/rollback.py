"""Do what `rollback_plan` has planned, once somebody has agreed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from t3_backup.autoupdate import journal, journal_runner, preflight, resume, transition
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.faults import find_faults
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.journal_runner import finish_journal, now
from t3_backup.autoupdate.preflight import UNTOUCHED
from t3_backup.autoupdate.rollback_plan import Plan
from t3_backup.errors import Failure


def execute_plans(
    context: Context, plans: Sequence[Plan], kind: str, agreed: Callable[[], None]
) -> None:
    """Say what would be done, have somebody agree, and do it.

    What is an account's own fault keeps no other from it. Raises Failure where an account failed
    otherwise, and Cancelled; the others stay as they are.
    """
    for plan in plans:
        for line in plan.lines:
            context.say(line)
    plans = _keep_fit(context, plans)
    agreed()
    context.link_newcomers()
    if (open_ := context.journals.load()) is not None:
        _close_bump(context, open_)
    for plan in plans:
        if not plan.has_data:
            _link_without_data(context, plan.move)
    moves = tuple(plan.move for plan in plans if plan.has_data)
    if not moves:
        context.installations.lower_default()
        return
    under_way = Journal(kind, moves[0].program, now(), moves)
    context.journals.save(under_way)
    for wanted in moves:
        context.raise_if_stopped("the other accounts were not changed")
        under_way = journal_runner.run_move(context, under_way, wanted, transition.begin_transition)
        done = under_way.move_of(wanted.user)
        if done.left_out:
            under_way = resume.leave_out(context, under_way, done.user, done.reason)
        elif done.phase != journal.DONE:
            if done.phase not in journal.UNDER_WAY:
                finish_journal(context, under_way, "failed")
            raise Failure(f"{done.user}: {kind} to {done.program} failed: {done.reason}")
    resume.end_rollback(context, under_way)


def _keep_fit(context: Context, plans: Sequence[Plan]) -> list[Plan]:
    """Leave out who can't be moved now, and tell why. Raises Failure where nobody is left."""
    everybody = context.servers()
    accounts = [context.server(plan.move.user) for plan in plans]
    faults = find_faults(accounts, lambda one: preflight.check_port(one, everybody))
    if len(faults) == len(plans):
        raise Failure("; ".join(f"{user}: {fault}; {UNTOUCHED}" for user, fault in faults.items()))
    for user, fault in faults.items():
        context.warn(f"{user}: nothing is done with this one: {fault}")
        context.left_out.add(user)
    return [plan for plan in plans if plan.move.user not in faults]


def _link_without_data(context: Context, wanted: Move) -> None:
    """Link an account that has no database yet."""
    if context.server(wanted.user).read_activity() is not None:
        context.warn(f"{wanted.user}: has a database now: check again with --dry-run")
        context.left_out.add(wanted.user)
        return
    context.installations.link_version(wanted.user, wanted.program)
    context.say(f"{wanted.user}: on {wanted.program}; there is no database yet")


def _close_bump(context: Context, left: Journal) -> None:
    """End a bump with deferred accounts, which stay where they are.

    Raises Failure where a move is under way.
    """
    if left.users(*journal.UNDER_WAY):
        raise Failure(f"the {left.kind} to {left.version} is under way: t3-autoupdate resume")
    finish_journal(context, left, "stopped")
