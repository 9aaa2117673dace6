"""Carry a bump on from its journal: move who waits or was deferred, end the rest.

At the first account that the version fails, it ends, and freezes: nothing goes on by itself. What
is an account's own fault freezes that one alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from t3_backup import accounts
from t3_backup.autoupdate import freeze, journal, journal_runner, preflight, transition
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.faults import why_faulty
from t3_backup.autoupdate.journal import DONE, Journal, Move
from t3_backup.autoupdate.journal_runner import finish_journal, now
from t3_backup.autoupdate.programs.installations import GLOBAL
from t3_backup.autoupdate.programs.own_program import why_left_alone
from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.t3 import versions
from t3_backup.t3.busy import find_busy
from t3_backup.t3.servers import Server
from t3_backup.text import quote


def move_waiting(context: Context, plan: Journal, *, include_busy: bool = False) -> None:
    """Move the accounts that wait, and end the bump where none is left.

    Who is found at work by then is left for later.

    Raises Failure where the version failed on one, and Cancelled: the others stay as they are.
    """
    left = "not all accounts were moved: the rest follow with: t3-autoupdate drain"
    everybody = context.servers()
    for user in plan.waiting():
        context.raise_if_stopped(left)
        # somebody may have done that while another was moved
        freeze.raise_if_frozen(context.settings.freeze)
        plan = _move_one(context, plan, user, everybody, include_busy=include_busy)
    deferred = [one for one in plan.moves if one.phase == journal.DEFERRED]
    for one in deferred:
        stays = f"stays on {one.before} for now: {one.reason}"
        context.say(f"{one.user}: {stays}; t3-autoupdate drain tries again")
    if deferred or plan.users(*journal.UNDER_WAY):
        return
    all_linked = context.link_newcomers()
    if plan.moves and not plan.users(DONE):
        finish_journal(context, plan, "failed")
        return
    if all_linked and not plan.canary:
        context.installations.link_version(GLOBAL, plan.version)
    finish_journal(context, plan, "done")
    if plan.canary:
        finished = ", ".join(plan.users(journal.DONE))
        if finished:
            follow = f"next: t3-autoupdate --to {plan.version}, for all"
            context.say(f"{finished}: the canary on {plan.version}; {follow}")
        return
    report_versions(context, context.installations.linked_users(), plan.version)


def _move_one(
    context: Context, plan: Journal, user: str, everybody: Sequence[Server], *, include_busy: bool
) -> Journal:
    """Move one account; return the new journal. Raises Failure where the version failed on it."""
    if (why := context.why_frozen(user)) is not None:
        end = f"next: t3-autoupdate thaw --user {quote(user)}"
        context.say(f"{user}: stays on {plan.move_of(user).before}: frozen: {why}; {end}")
        return _set_aside(context, plan, user, f"frozen: {why}")
    # what was well when it was planned may not be any more, and a server is not stopped in vain
    if why := why_faulty(user, lambda: _check_again(context.server(user), everybody)):
        return leave_out(context, plan, user, why)
    if not include_busy and (busy := find_busy([context.server(user)], wait=False)):
        move = replace(plan.move_of(user), phase=journal.DEFERRED, reason=busy[user])
        plan = plan.with_move(move)
        context.journals.save(plan)
        return plan
    plan = journal_runner.run_move(context, plan, plan.move_of(user), transition.begin_transition)
    done = plan.move_of(user)
    if done.left_out:
        return leave_out(context, plan, user, done.reason)
    if done.phase != journal.DONE:
        _fail_bump(context, plan, done)
    return plan


def _check_again(one: Server, everybody: Sequence[Server]) -> None:
    """Check what may have changed since the bump was planned. Raises Failure."""
    preflight.check_port(one, everybody)
    one.read_activity()


def leave_out(context: Context, plan: Journal, user: str, why: str) -> Journal:
    """Freeze an account of the plan alone, and return the new journal, which says so."""
    froze = context.leave_out(user, why.removeprefix(f"{user}: "))
    return _set_aside(context, plan, user, why, froze)


def _set_aside(context: Context, plan: Journal, user: str, why: str, froze: str = "") -> Journal:
    """Return the journal in which an account is left out."""
    move = replace(plan.move_of(user), left_out=True, reason=why, froze=froze)
    if move.phase == journal.DEFERRED:
        move = replace(move, phase=journal.WAITING)
    plan = plan.with_move(move)
    context.journals.save(plan)
    return plan


def report_versions(context: Context, users: Sequence[str], version: str) -> None:
    """Say whether all are on `version`: some could not be moved, or came since."""
    programs = {}
    for user in users:
        try:
            programs[user] = context.installations.version_of(user)
        except Failure as failure:
            context.warn_once(f"{user}: {failure}")
    key = versions.version_key
    below = [user for user, program in programs.items() if key(program) < key(version)]
    later = "" if all(program == version for program in programs.values()) else " or later"
    but = f", except {', '.join(below)}" if below else ""
    context.say(f"all accounts are on {version}{later}{but}")


def _fail_bump(context: Context, plan: Journal, done: Move) -> None:
    """End the bump, and freeze: nothing goes on by itself. Always raises Failure."""
    why = f"{done.user}: {plan.kind} from {done.before} to {done.program} failed: {done.reason}"
    plan = replace(plan, froze=f"{now()} {why}".strip())
    freeze.freeze(context.settings.freeze, plan.froze)
    if done.phase not in journal.UNDER_WAY:
        finish_journal(context, plan, "failed")
    else:
        context.journals.save(plan)
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
    left = [] if plan is None else [*plan.users(journal.DEFERRED), *plan.waiting()]
    if plan is None or plan.kind != "bump" or not left:
        context.say("no account was deferred")
        return
    plan = _drop_own_programs(context, _drop_removed_users(context, plan))
    later = _find_later(context, plan.users(journal.DEFERRED), include_busy=include_busy)
    for one in plan.moves:
        if one.phase == journal.DEFERRED:
            why = later.get(one.user, "")
            phase = journal.DEFERRED if why else journal.WAITING
            plan = plan.with_move(replace(one, phase=phase, reason=why))
    context.journals.save(plan)
    move_waiting(context, plan, include_busy=include_busy)


def _drop_removed_users(context: Context, plan: Journal) -> Journal:
    """Leave out those who are no users of the system any more: it would wait for ever.

    Who is in the middle of a move, and still in the map, may only be unknown for now, as before a
    directory service runs: their program and data need not fit, and stay held.
    """
    left = plan.users(journal.DEFERRED, journal.WAITING, *journal.UNDER_WAY)
    gone = [user for user in left if not accounts.exists(user)]
    if half := {*gone}.intersection(plan.users(*journal.UNDER_WAY)):
        half.intersection_update(context.users())
    gone = [user for user in gone if user not in half]
    for user in gone:
        context.warn(f"{user}: no longer a user of this system: left out")
        context.installations.release(user)
    return _drop_moves(context, plan, gone)


def _drop_own_programs(context: Context, plan: Journal) -> Journal:
    """Leave out those who have moved themselves since: their server runs none of ours."""
    gone = []
    for user in plan.users(journal.DEFERRED, journal.WAITING):
        with contextlib.suppress(Failure):  # it is told when it is their turn
            if why := why_left_alone(context.server(user), context.installations):
                context.warn(why)
                gone.append(user)
    return _drop_moves(context, plan, gone)


def _drop_moves(context: Context, plan: Journal, users: Sequence[str]) -> Journal:
    if users:
        plan = replace(plan, moves=tuple(one for one in plan.moves if one.user not in users))
        context.journals.save(plan)
    return plan


def _find_later(context: Context, users: Sequence[str], *, include_busy: bool) -> dict[str, str]:
    """Say why accounts are not moved now, of each that isn't. It holds up no other."""
    later, servers = {}, []
    for user in users:
        if context.why_frozen(user) is not None:
            continue  # that one is left out
        try:
            servers.append(context.server(user))
        except SystemdUnanswered:
            raise
        except Failure as failure:
            later[user] = str(failure)
    return later | ({} if include_busy else find_busy(servers))


def resume_interrupted(context: Context) -> None:
    """Complete or undo what was interrupted.

    Raises Failure where the version failed on an account, or that could not be told.
    """
    plan = context.journals.load()
    if plan is None:
        _release_forgotten(context)
        return
    plan = _drop_removed_users(context, plan)
    go_on = transition.continue_transition
    if plan.kind != "bump":
        go_on = transition.continue_rollback
    under_way = plan.users(*journal.UNDER_WAY)
    unknown = [user for user in under_way if not accounts.exists(user)]
    for user in under_way:
        if user in unknown:
            continue
        one = plan.move_of(user)
        context.say(f"{user}: the {plan.kind} was interrupted while {one.phase}")
        plan = journal_runner.run_move(context, plan, one, go_on)
        done = plan.move_of(user)
        if done.left_out:
            plan = leave_out(context, plan, user, done.reason)
        elif done.phase == journal.WAITING:
            done = replace(done, phase=journal.DEFERRED, reason="it was interrupted")
            plan = plan.with_move(done)
            context.journals.save(plan)
    if unknown:
        what = "no such user on this system, and their move has not ended"
        mend = f"take who was removed out of {context.user_map}, then: t3-autoupdate resume"
        raise Failure(f"{', '.join(unknown)}: {what}: nothing else is begun; next: {mend}")
    # One may have failed before the interruption, too: it is the end of the whole.
    if failed := plan.failed():
        _fail_bump(context, plan, plan.move_of(failed[0]))
    if plan.kind != "bump":
        end_rollback(context, plan)
    elif not (plan.users(journal.DEFERRED, *journal.UNDER_WAY) or plan.waiting()):
        move_waiting(context, plan)  # all that is left is its end


def end_rollback(context: Context, plan: Journal) -> None:
    """End a rollback, or its undo, and the freezes that failed ones of the same accounts made.

    One of which an account is down by its own fault goes on with the next command.
    """
    if plan.users(*journal.UNDER_WAY):
        return
    whole = len(plan.users(journal.DONE)) == len(plan.moves)
    result = "failed" if any(one.left_out for one in plan.moves) else "stopped"
    finish_journal(context, plan, "done" if whole else result)
    history = context.journals.history()
    files = {user: freeze.account_file(context.settings.root, user) for user in plan.users(DONE)}
    for user, file in files.items():
        made = [one.froze for one in journal.find_moves(history, user) if one.froze]
        if made and freeze.read_reason(file) == made[0] and freeze.thaw(file):
            context.say(f"{user}: is frozen no more: what failed was done since")
    why = freeze.read_reason(context.settings.freeze)
    if why is not None and journal.is_mended(history, why):
        freeze.thaw(context.settings.freeze)
        context.say("frozen no more: the rollback that failed was done since")


def _release_forgotten(context: Context) -> None:
    """End each hold without a move: a command died in between."""
    for user in context.installations.linked_users():
        if context.installations.is_held(user):
            context.installations.release(user)
            context.warn(f"{user}: released a stale hold")
