"""All accounts to another version: prove it, keep what there is, switch one after another, and stop at the first that fails.

Nothing is changed before the gate has passed and every account has a proven snapshot. Whoever is busy is deferred, and comes later
(`drain`). What was interrupted is ended by `resume`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from t3_backup import accounts
from t3_backup.autoupdate import freeze, journal, npm, preflight, snapshots, transition
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate import gate
from t3_backup.autoupdate.gate.gate import Trial
from t3_backup.autoupdate.installations import GLOBAL
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.preflight import UNTOUCHED
from t3_backup.autoupdate.snapshots import Snapshot
from t3_backup.errors import Failure
from t3_backup.t3 import versions
from t3_backup.t3.servers import Server
from t3_backup.text import format_time, utc_now


def now() -> str:
    """RFC 3339, UTC."""
    return format_time(utc_now())


def bump(machine: Context, version: str, *, asked: bool, gate_only: bool = False, include_busy: bool = False) -> list[Trial]:
    """Bring every account to `version`; what the gate found. `asked`: by hand, and not as the pin has it.

    Raises Failure where an account could not be, Cancelled where it was stopped, and OSError; each account is then on a program and
    data that fit.
    """
    if not gate_only:
        machine.must_not_be_frozen()
    resume(machine)
    if (open_ := machine.journals.load()) is not None:
        if gate_only or open_.version != version or open_.kind != "bump":
            text = f"the {open_.kind} to {open_.version} has not ended ({journal.summary(open_.moves)}): t3-autoupdate drain"
            if not asked and not gate_only and versions.version_key(version) <= versions.version_key(open_.version):
                machine.say(f"{text} goes on with it")  # by hand, beyond the pin, and somebody is at work: no failure of the night
                return []
            raise Failure(f"{text} ends it, and with --include-busy at once")
        drain(machine, include_busy=include_busy)
        return []
    if not asked and not machine.users():
        machine.say(f"{machine.user_map} names nobody: nothing is done")
        return []
    if not gate_only:
        machine.adopt()
    everybody = machine.instances()
    found = [one for one in everybody if _is_to_move(machine, one.user, version, asked=asked)]
    for one in list(found):
        if one.look() is None and (why := machine.why_gone(one)):
            machine.warn(f"{one.user}: stays on {machine.program_of(one.user)}: {why}")
            found.remove(one)
    if not found and versions.version_key(machine.program_of(GLOBAL)) >= versions.version_key(version):
        _tell_that_all_are_there(machine, [one.user for one in everybody], version)
        return []
    preflight.must_be_told_apart(everybody)
    known = {one.user: machine.backups.list(one.user) for one in found}
    preflight.must_have_room(machine.settings.root, found, known)
    machine.must_go_on(UNTOUCHED)
    npm.fetch(machine.programs, version, machine.settings.npm_spec.format(version=version), machine.say)
    trials = try_out(machine, version, found, known)
    if gate_only:
        return trials
    prebump = {}
    for one in found:
        machine.must_go_on(UNTOUCHED)
        if one.look() is not None:
            prebump[one.user] = machine.backups.take(one.user, f"prebump-{version}").name
    moves = [_planned(machine, one, version, include_busy=include_busy) for one in found if one.user in prebump]
    for one in found:
        if one.user not in prebump:
            machine.programs.link(one.user, version)
            machine.say(f"{one.user}: on {version}; there is no database yet")
    plan = Journal("bump", version, now(), tuple(sorted(moves, key=lambda one: one.phase != journal.WAITING)), prebump=prebump)
    machine.journals.save(plan)
    _carry_on(machine, plan)
    return trials


def _is_to_move(machine: Context, user: str, version: str, *, asked: bool) -> bool:
    """Whether an account is on a lower version. Raises Failure where it is asked to go down: its database doesn't."""
    current = machine.program_of(user)
    if versions.version_key(current) <= versions.version_key(version):
        return current != version
    text = f"{user} is on {current}, above {version}, which can't work with its database"
    if asked:
        raise Failure(f"{text}; to go back with the data of then: t3-autoupdate rollback --to {version}")
    machine.say(f"{text}: nothing is done (T3_PIN)")
    return False


def try_out(machine: Context, version: str, found: Sequence[Server], known: Mapping[str, Sequence[Snapshot]]) -> list[Trial]:
    """The gate: on an empty state, and on a copy of each account's data. Raises Failure where it turns it away, and Cancelled."""
    programs = machine.programs
    for one in found:
        newest, live = next(filter(snapshots.is_good, known[one.user]), None), one.look()
        if live is not None and (newest is None or newest.t3_level != live.level):
            machine.backups.take(one.user, None)  # else nothing would be known of this one's data, as it is now
    users, trials = [one.user for one in found], []
    for trial in gate.try_version(
        programs.prefix(version), users, machine.backups.write, watch_seconds=machine.settings.watch, say=machine.say
    ):
        trials.append(trial)
        if trial.passed:
            levels = f"level {trial.level_before} to {trial.level_after}" if trial.level_before else f"level {trial.level_after}"
            machine.say(f"gate: {version} passed on {_subject(trial)} ({levels}, login by {trial.endpoint})")
        else:
            machine.warn(f"gate: {version} failed on {_subject(trial)} at {trial.step}: {trial.reason}")
            for line in trial.log:
                machine.warn(f"gate:   {line}")
            raise Failure(f"{version} was turned away by the gate at {trial.step}; {UNTOUCHED}")
        machine.must_go_on(UNTOUCHED)
    empty = next(trial for trial in trials if trial.subject == gate.EMPTY)
    programs.note(replace(programs.about(version), level=empty.level_after))
    return trials


def _subject(trial: Trial) -> str:
    return "an empty state" if trial.subject == gate.EMPTY else f"the data of {trial.subject}"


def _planned(machine: Context, one: Server, version: str, *, include_busy: bool) -> Move:
    why = "" if include_busy else one.busy()
    return Move(
        user=one.user,
        before=machine.program_of(one.user),
        program=version,
        label=f"prebump-{version}",
        phase=journal.DEFERRED if why else journal.WAITING,
        reason=why,
    )


def _carry_on(machine: Context, plan: Journal) -> None:
    """Move whoever waits, and end the bump where nobody is left.

    Raises Failure where one failed, and Cancelled: the rest stay as they are.
    """
    for user in plan.users(journal.WAITING):
        machine.must_go_on("the accounts that are left come with the next: t3-autoupdate drain")
        machine.must_not_be_frozen()  # somebody may have done that while another was moved
        [wanted] = [one for one in plan.moves if one.user == user]
        plan = machine.carry(plan, wanted, transition.begin_transition)
        [done] = [one for one in plan.moves if one.user == user]
        if done.phase != journal.DONE:
            _fail(machine, plan, done)
    deferred = [one for one in plan.moves if one.phase == journal.DEFERRED]
    for one in deferred:
        machine.say(f"{one.user}: stays on {one.before} for now: {one.reason}; t3-autoupdate drain tries again")
    if deferred:
        return
    machine.settle_newcomers()
    machine.programs.link(GLOBAL, plan.version)
    machine.end(plan, "done", now())
    _tell_that_all_are_there(machine, machine.programs.linked(), plan.version)


def _tell_that_all_are_there(machine: Context, users: Sequence[str], version: str) -> None:
    """Some may be above it; and below it who could not be moved, or came in the meantime."""
    programs = {user: machine.program_of(user) for user in users}
    if below := [user for user, program in programs.items() if versions.version_key(program) < versions.version_key(version)]:
        machine.say(f"nobody is below {version}, but {', '.join(below)}")
    else:
        there = all(program == version for program in programs.values())
        machine.say(f"all accounts are on {version}" if there else f"nobody is below {version}")


def _fail(machine: Context, plan: Journal, done: Move) -> None:
    """Stop here, and let nothing go on by itself. Raises Failure, always."""
    why = f"{done.user}: {plan.kind} from {done.before} to {done.program} failed: {done.reason}"
    freeze.freeze(machine.settings.freeze, f"{now()} {why}")
    if done.phase not in journal.UNDER_WAY:
        machine.end(plan, "failed", now())
    finished = plan.users(journal.DONE)
    also = f"; {', '.join(finished)} stay on {plan.version}" if finished else ""
    raise Failure(f"{why}{also}; frozen until: t3-autoupdate thaw")


def drain(machine: Context, *, include_busy: bool = False) -> None:
    """Move those who were deferred, and are not busy any more; nobody while it is frozen. Raises Failure and Cancelled."""
    if machine.is_frozen():
        return
    plan = machine.journals.load()
    if plan is None or plan.kind != "bump" or not plan.users(journal.DEFERRED, journal.WAITING):
        machine.say("nobody was left for later")
        return
    plan = _without_the_gone(machine, plan)
    for one in plan.moves:
        if one.phase == journal.DEFERRED:
            why = _why_later(machine, one.user, include_busy=include_busy)
            phase = journal.DEFERRED if why else journal.WAITING
            plan = plan.with_move(replace(one, phase=phase, reason=why))
    machine.journals.save(plan)
    _carry_on(machine, plan)


def _without_the_gone(machine: Context, plan: Journal) -> Journal:
    """Without those who were left for later, and are no users of the system any more: nobody is to wait for them for ever."""
    gone = [user for user in plan.users(journal.DEFERRED, journal.WAITING) if not accounts.exists(user)]
    for user in gone:
        machine.warn(f"{user}: no such user on this system any more, and left out")
    return replace(plan, moves=tuple(one for one in plan.moves if one.user not in gone))


def _why_later(machine: Context, user: str, *, include_busy: bool) -> str:
    """Why an account is not moved now; empty where it is. That one's can't be looked at holds up nobody else."""
    try:
        instance = machine.instance(user)
        return "" if include_busy else instance.busy()
    except Failure as failure:
        return str(failure)


def resume(machine: Context) -> None:
    """Complete or undo what was interrupted. Raises Failure where an account had to go back, or could not."""
    plan = machine.journals.load()
    if plan is None:
        _release_forgotten(machine, ())
        return
    for user in plan.users(*journal.UNDER_WAY):
        [one] = [one for one in plan.moves if one.user == user]
        machine.say(f"{user}: the {plan.kind} was interrupted while {one.phase}")
        plan = machine.carry(plan, one, transition.continue_transition)
        [done] = [one for one in plan.moves if one.user == user]
        if done.phase == journal.WAITING:
            plan = plan.with_move(replace(done, phase=journal.DEFERRED, reason="it was interrupted"))
            machine.journals.save(plan)
    # One may have failed before the interruption, too: it is the end of the whole.
    if failed := plan.users(journal.REVERTED, *journal.UNDER_WAY):
        _fail(machine, plan, next(one for one in plan.moves if one.user == failed[0]))
    if plan.kind == "bump" and not plan.users(journal.DEFERRED, journal.WAITING):
        _carry_on(machine, plan)  # all that is left is its end
    elif plan.kind != "bump":
        machine.end(plan, "done" if len(plan.users(journal.DONE)) == len(plan.moves) else "stopped", now())


def _release_forgotten(machine: Context, held: Sequence[str]) -> None:
    """A hold without a move is of a command that died between the two: nothing was changed."""
    for user in machine.programs.linked():
        if user not in held and machine.programs.is_held(user):
            machine.programs.release(user)
            machine.warn(f"{user}: was held by nobody, and is no longer")
