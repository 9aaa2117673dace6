"""Bring all accounts to another version.

Try it, seal snapshots, switch one after another, stop at the first failure. Nothing is changed
before the gate has passed and every account has a proven snapshot. Accounts with an agent at work
are deferred, and moved later (`drain_deferred`). What was interrupted is ended by
`resume_interrupted`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from t3_backup import accounts
from t3_backup.autoupdate import (
    adopt,
    freeze,
    journal,
    journal_runner,
    npm,
    preflight,
    snapshots,
    transition,
)
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate import gate
from t3_backup.autoupdate.gate.gate import Trial
from t3_backup.autoupdate.installations import GLOBAL
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.journal_runner import finish_journal, now
from t3_backup.autoupdate.preflight import UNTOUCHED
from t3_backup.errors import Failure
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import versions
from t3_backup.t3.servers import Server


def bump_accounts(
    context: Context,
    version: str,
    *,
    asked: bool,
    gate_only: bool = False,
    include_busy: bool = False,
) -> list[Trial]:
    """Bring every account to `version`, and return what the gate found.

    `asked`: by hand, and not as the pin has it. Raises Failure where an account failed, Cancelled
    where somebody wanted an end, and OSError; each account is then on a program and data that fit.
    """
    if not gate_only:
        freeze.raise_if_frozen(context.settings.freeze)
    resume_interrupted(context)
    if (open_ := context.journals.load()) is not None:
        if gate_only or open_.version != version or open_.kind != "bump":
            text = (
                f"the {open_.kind} to {open_.version} has not ended "
                f"({journal.summarize_moves(open_.moves)}): t3-autoupdate drain"
            )
            if (
                not asked
                and not gate_only
                and versions.version_key(version) <= versions.version_key(open_.version)
            ):
                # by hand, beyond the pin, and somebody is at work: no failure of the night
                context.say(f"{text} continues it")
                return []
            raise Failure(f"{text} continues it; with --include-busy it does not wait")
        drain_deferred(context, include_busy=include_busy)
        return []
    if not asked and not context.users():
        context.say(f"{context.user_map} names no account: nothing is done")
        return []
    if not gate_only:
        adopt.adopt_accounts(context)
    everybody = context.servers()
    found = [one for one in everybody if _is_to_move(context, one.user, version, asked=asked)]
    for one in list(found):
        if one.read_activity() is None and (
            why := preflight.why_no_database(one, context.snapshots)
        ):
            context.warn(
                f"{one.user}: stays on {context.installations.version_of(one.user)}: {why}"
            )
            found.remove(one)
    if not found and versions.version_key(
        context.installations.version_of(GLOBAL)
    ) >= versions.version_key(version):
        _report_versions(context, [one.user for one in everybody], version)
        return []
    preflight.check_ports(everybody)
    known = {one.user: context.snapshots.list_snapshots(one.user) for one in found}
    preflight.check_disk_space(context.settings.root, found, known)
    context.raise_if_stopped(UNTOUCHED)
    npm.fetch_version(
        context.installations,
        version,
        context.settings.npm_spec.format(version=version),
        context.say,
    )
    trials = run_gate(context, version, found, known)
    if gate_only:
        return trials
    prebump = {}
    for one in found:
        context.raise_if_stopped(UNTOUCHED)
        if one.read_activity() is not None:
            prebump[one.user] = context.snapshots.take_snapshot(one.user, f"prebump-{version}").name
    moves = [
        _plan_move(context, one, version, include_busy=include_busy)
        for one in found
        if one.user in prebump
    ]
    for one in found:
        if one.user not in prebump:
            context.installations.link_version(one.user, version)
            context.say(f"{one.user}: on {version}; there is no database yet")
    plan = Journal(
        "bump",
        version,
        now(),
        tuple(sorted(moves, key=lambda one: one.phase != journal.WAITING)),
        prebump=prebump,
    )
    context.journals.save(plan)
    _move_waiting(context, plan)
    return trials


def _is_to_move(context: Context, user: str, version: str, *, asked: bool) -> bool:
    """Tell whether an account is on a lower version.

    Raises Failure where it is asked to go down: its database can't.
    """
    current = context.installations.version_of(user)
    if versions.version_key(current) <= versions.version_key(version):
        return current != version
    text = f"{user} is on {current}, above {version}, which can't work with its database"
    if asked:
        raise Failure(
            f"{text}; to go back with the data of then: t3-autoupdate rollback --to {version}"
        )
    context.say(f"{text}: nothing is done (T3_PIN)")
    return False


def run_gate(
    context: Context, version: str, found: Sequence[Server], known: Mapping[str, Sequence[Manifest]]
) -> list[Trial]:
    """Try a version on an empty state and on copies of all data.

    Raises Failure where it is turned away, and Cancelled.
    """
    installations = context.installations
    for one in found:
        newest, live = next(filter(snapshots.is_good, known[one.user]), None), one.read_activity()
        if live is not None and (newest is None or newest.t3_level != live.level):
            # else nothing would be known of this one's data, as it is now
            context.snapshots.take_snapshot(one.user, None)
    users, trials = [one.user for one in found], []
    for trial in gate.try_version(
        installations.prefix(version),
        users,
        context.snapshots.write_newest,
        watch_seconds=context.settings.watch,
        say=context.say,
    ):
        trials.append(trial)
        if trial.passed:
            levels = (
                f"level {trial.level_before} to {trial.level_after}"
                if trial.level_before
                else f"level {trial.level_after}"
            )
            context.say(
                f"gate: {version} passed on {_subject(trial)} ({levels}, login by {trial.endpoint})"
            )
        else:
            context.warn(
                f"gate: {version} failed on {_subject(trial)} at {trial.step}: {trial.reason}"
            )
            for line in trial.log:
                context.warn(f"gate:   {line}")
            raise Failure(f"{version} was turned away by the gate at {trial.step}; {UNTOUCHED}")
        context.raise_if_stopped(UNTOUCHED)
    empty = next(trial for trial in trials if trial.subject == gate.EMPTY)
    installations.save_about(replace(installations.about(version), level=empty.level_after))
    return trials


def _subject(trial: Trial) -> str:
    return "an empty state" if trial.subject == gate.EMPTY else f"the data of {trial.subject}"


def _plan_move(context: Context, one: Server, version: str, *, include_busy: bool) -> Move:
    why = "" if include_busy else one.why_busy()
    return Move(
        user=one.user,
        before=context.installations.version_of(one.user),
        program=version,
        label=f"prebump-{version}",
        phase=journal.DEFERRED if why else journal.WAITING,
        reason=why,
    )


def _move_waiting(context: Context, plan: Journal) -> None:
    """Move the accounts that wait, and end the bump where none is left.

    Raises Failure where one failed, and Cancelled: the others stay as they are.
    """
    for user in plan.users(journal.WAITING):
        context.raise_if_stopped(
            "not all accounts were moved: the rest follow with: t3-autoupdate drain"
        )
        # somebody may have done that while another was moved
        freeze.raise_if_frozen(context.settings.freeze)
        plan = journal_runner.run_move(
            context, plan, plan.move_of(user), transition.begin_transition
        )
        done = plan.move_of(user)
        if done.phase != journal.DONE:
            _fail_bump(context, plan, done)
    deferred = [one for one in plan.moves if one.phase == journal.DEFERRED]
    for one in deferred:
        context.say(
            f"{one.user}: stays on {one.before} for now: {one.reason}; t3-autoupdate drain tries again"
        )
    if deferred:
        return
    context.installations.link_newcomers(one.user for one in context.servers())
    context.installations.link_version(GLOBAL, plan.version)
    finish_journal(context, plan, "done")
    _report_versions(context, context.installations.linked_users(), plan.version)


def _report_versions(context: Context, users: Sequence[str], version: str) -> None:
    """Say who is where.

    Some accounts may be above it, and below it those that could not be moved, or came since.
    """
    programs = {user: context.installations.version_of(user) for user in users}
    if below := [
        user
        for user, program in programs.items()
        if versions.version_key(program) < versions.version_key(version)
    ]:
        context.say(f"all accounts are on {version} or later, except {', '.join(below)}")
    else:
        there = all(program == version for program in programs.values())
        context.say(
            f"all accounts are on {version}" if there else f"all accounts are on {version} or later"
        )


def _fail_bump(context: Context, plan: Journal, done: Move) -> None:
    """End the bump, and freeze it, so that nothing goes on by itself.

    Always raises Failure.
    """
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
    for one in plan.moves:
        if one.phase == journal.DEFERRED:
            why = _why_later(context, one.user, include_busy=include_busy)
            phase = journal.DEFERRED if why else journal.WAITING
            plan = plan.with_move(replace(one, phase=phase, reason=why))
    context.journals.save(plan)
    _move_waiting(context, plan)


def _drop_removed_users(context: Context, plan: Journal) -> Journal:
    """Leave out deferred accounts that are no users of the system any more.

    Else the bump would wait for them for ever.
    """
    gone = [
        user for user in plan.users(journal.DEFERRED, journal.WAITING) if not accounts.exists(user)
    ]
    for user in gone:
        context.warn(f"{user}: no longer a user of this system: left out")
    return replace(plan, moves=tuple(one for one in plan.moves if one.user not in gone))


def _why_later(context: Context, user: str, *, include_busy: bool) -> str:
    """Say why an account is not moved now; empty where it is.

    One that can't be looked at holds up no other.
    """
    try:
        server = context.server(user)
        return "" if include_busy else server.why_busy()
    except Failure as failure:
        return str(failure)


def resume_interrupted(context: Context) -> None:
    """Complete or undo what was interrupted.

    Raises Failure where an account had to go back, or could not.
    """
    plan = context.journals.load()
    if plan is None:
        _release_forgotten(context)
        return
    for user in plan.users(*journal.UNDER_WAY):
        one = plan.move_of(user)
        context.say(f"{user}: the {plan.kind} was interrupted while {one.phase}")
        plan = journal_runner.run_move(context, plan, one, transition.continue_transition)
        done = plan.move_of(user)
        if done.phase == journal.WAITING:
            plan = plan.with_move(
                replace(done, phase=journal.DEFERRED, reason="it was interrupted")
            )
            context.journals.save(plan)
    # One may have failed before the interruption, too: it is the end of the whole.
    if failed := plan.users(journal.REVERTED, *journal.UNDER_WAY):
        _fail_bump(context, plan, next(one for one in plan.moves if one.user == failed[0]))
    if plan.kind == "bump" and not plan.users(journal.DEFERRED, journal.WAITING):
        _move_waiting(context, plan)  # all that is left is its end
    elif plan.kind != "bump":
        finish_journal(
            context, plan, "done" if len(plan.users(journal.DONE)) == len(plan.moves) else "stopped"
        )


def _release_forgotten(context: Context) -> None:
    """End each hold without a move.

    A command died between the two, and nothing was changed.
    """
    for user in context.installations.linked_users():
        if context.installations.is_held(user):
            context.installations.release(user)
            context.warn(f"{user}: released a stale hold")
