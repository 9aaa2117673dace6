"""Carry a bump on from its journal: move who waits or was deferred, end the rest.

At the first account that fails it ends, and freezes: nothing goes on by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from t3_backup import accounts
from t3_backup.autoupdate import freeze, journal, journal_runner, transition
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.installations import GLOBAL
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.journal_runner import finish_journal, now
from t3_backup.errors import Failure
from t3_backup.t3 import versions
from t3_backup.t3.busy import find_busy


def move_waiting(context: Context, plan: Journal) -> None:
    """Move the accounts that wait, and end the bump where none is left.

    Raises Failure where one failed, and Cancelled: the others stay as they are.
    """
    left = "not all accounts were moved: the rest follow with: t3-autoupdate drain"
    for user in plan.users(journal.WAITING):
        context.raise_if_stopped(left)
        # somebody may have done that while another was moved
        freeze.raise_if_frozen(context.settings.freeze)
        move = plan.move_of(user)
        plan = journal_runner.run_move(context, plan, move, transition.begin_transition)
        done = plan.move_of(user)
        if done.phase != journal.DONE:
            _fail_bump(context, plan, done)
    deferred = [one for one in plan.moves if one.phase == journal.DEFERRED]
    for one in deferred:
        stays = f"stays on {one.before} for now: {one.reason}"
        context.say(f"{one.user}: {stays}; t3-autoupdate drain tries again")
    if deferred:
        return
    context.installations.link_newcomers(one.user for one in context.servers())
    context.installations.link_version(GLOBAL, plan.version)
    finish_journal(context, plan, "done")
    report_versions(context, context.installations.linked_users(), plan.version)


def report_versions(context: Context, users: Sequence[str], version: str) -> None:
    """Say whether all are on `version`: some could not be moved, or came since."""
    programs = {user: context.installations.version_of(user) for user in users}
    key = versions.version_key
    below = [user for user, program in programs.items() if key(program) < key(version)]
    later = "" if all(program == version for program in programs.values()) else " or later"
    but = f", except {', '.join(below)}" if below else ""
    context.say(f"all accounts are on {version}{later}{but}")


def _fail_bump(context: Context, plan: Journal, done: Move) -> None:
    """End the bump, and freeze: nothing goes on by itself. Always raises Failure."""
    why = f"{done.user}: {plan.kind} from {done.before} to {done.program} failed: {done.reason}"
    freeze.freeze(context.settings.freeze, f"{now()} {why}")
    if done.phase not in journal.UNDER_WAY:
        finish_journal(context, plan, "failed")
    finished = plan.users(journal.DONE)
    also = f"; {', '.join(finished)} stay on {plan.version}" if finished else ""
    raise Failure(f"{why}{also}; frozen until: t3-autoupdate thaw")


def drain_deferred(context: Context, *, include_busy: bool = False) -> None:
    """Move deferred accounts that are not busy any more; none while it is frozen.

    Raises Failure and Cancelled.
    """
    if freeze.report_frozen(context.settings.freeze, context.say):
        return
    plan = context.journals.load()
    if plan is None or plan.kind != "bump" or not plan.users(journal.DEFERRED, journal.WAITING):
        context.say("no account was deferred")
        return
    plan = _drop_removed_users(context, plan)
    later = _find_later(context, plan.users(journal.DEFERRED), include_busy=include_busy)
    for one in plan.moves:
        if one.phase == journal.DEFERRED:
            why = later.get(one.user, "")
            phase = journal.DEFERRED if why else journal.WAITING
            plan = plan.with_move(replace(one, phase=phase, reason=why))
    context.journals.save(plan)
    move_waiting(context, plan)


def _drop_removed_users(context: Context, plan: Journal) -> Journal:
    """Leave out those who are no users of the system any more: it would wait for ever."""
    left = plan.users(journal.DEFERRED, journal.WAITING)
    gone = [user for user in left if not accounts.exists(user)]
    for user in gone:
        context.warn(f"{user}: no longer a user of this system: left out")
    return replace(plan, moves=tuple(one for one in plan.moves if one.user not in gone))


def _find_later(context: Context, users: Sequence[str], *, include_busy: bool) -> dict[str, str]:
    """Say why accounts are not moved now, of each that isn't. It holds up no other."""
    later, servers = {}, []
    for user in users:
        if (frozen := context.why_frozen(user)) is not None:
            later[user] = f"frozen: {frozen}; next: t3-autoupdate thaw --user {user}"
            continue
        try:
            servers.append(context.server(user))
        except Failure as failure:
            later[user] = str(failure)
    return later | ({} if include_busy else find_busy(servers))


def resume_interrupted(context: Context) -> None:
    """Complete or undo what was interrupted.

    Raises Failure where an account had to go back, or could not.
    """
    plan = context.journals.load()
    if plan is None:
        _release_forgotten(context)
        return
    go_on = transition.continue_transition
    if plan.kind != "bump":
        go_on = transition.continue_rollback
    for user in plan.users(*journal.UNDER_WAY):
        one = plan.move_of(user)
        context.say(f"{user}: the {plan.kind} was interrupted while {one.phase}")
        plan = journal_runner.run_move(context, plan, one, go_on)
        done = plan.move_of(user)
        if done.phase == journal.WAITING:
            done = replace(done, phase=journal.DEFERRED, reason="it was interrupted")
            plan = plan.with_move(done)
            context.journals.save(plan)
    # One may have failed before the interruption, too: it is the end of the whole.
    if failed := plan.users(journal.REVERTED, *journal.UNDER_WAY):
        _fail_bump(context, plan, next(one for one in plan.moves if one.user == failed[0]))
    if plan.kind == "bump" and not plan.users(journal.DEFERRED, journal.WAITING):
        move_waiting(context, plan)  # all that is left is its end
    elif plan.kind != "bump":
        whole = len(plan.users(journal.DONE)) == len(plan.moves)
        finish_journal(context, plan, "done" if whole else "stopped")


def _release_forgotten(context: Context) -> None:
    """End each hold without a move: a command died in between."""
    for user in context.installations.linked_users():
        if context.installations.is_held(user):
            context.installations.release(user)
            context.warn(f"{user}: released a stale hold")
