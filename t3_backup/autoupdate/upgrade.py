"""Bring all accounts to another version: try it, seal snapshots, begin the moves.

Nothing is changed before the gate has passed and every account has a proven snapshot. `resume`
moves them, later those who have an agent at work, and ends what was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from t3_backup.autoupdate import freeze, journal, preflight, resume, snapshots
from t3_backup.autoupdate.candidates import Candidates
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate import gate, learn
from t3_backup.autoupdate.gate.verdict import EMPTY, Trial, judge_trials
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.journal_runner import finish_journal, now
from t3_backup.autoupdate.preflight import UNTOUCHED
from t3_backup.autoupdate.programs import adopt, npm
from t3_backup.autoupdate.programs.installations import GLOBAL
from t3_backup.errors import Failure
from t3_backup.store.manifest import Manifest
from t3_backup.t3 import versions
from t3_backup.t3.busy import find_busy
from t3_backup.t3.servers import Activity, Server


def bump_accounts(
    context: Context,
    version: str,
    *,
    asked: bool,
    gate_only: bool = False,
    include_busy: bool = False,
    users: Sequence[str] = (),
) -> list[Trial]:
    """Bring every account to `version`, and return what the gate found.

    `asked`: by hand, and not as the pin has it. `users`: these alone, as a canary, and the default
    stays as it is. Raises Failure where an account failed, Cancelled where somebody wanted an end,
    and OSError; each account is then on a program and data that fit. Who had to be left out is in
    the context.
    """
    if not gate_only:
        freeze.raise_if_frozen(context.settings.freeze)
    resume.resume_interrupted(context)
    if (left := context.journals.load()) is not None:
        if not gate_only and _is_continued(left, version, users):
            resume.drain_deferred(context, include_busy=include_busy)
            return []
        if gate_only or not _ends_canary(context, left, version, users):
            _refuse_another(context, left, version, by_timer=not asked and not gate_only)
            return []
    if not asked and not context.users():
        context.say(f"{context.user_map} names no account: nothing is done")
        return []
    if not gate_only:
        adopt.adopt_accounts(context, context.leave_out)
    everybody = context.servers()
    chosen = [context.server(user) for user in users] if users else everybody
    found = Candidates(context, version, asked=asked, only_tried=gate_only)
    found.choose(everybody, chosen)
    if not found.accounts and (users or not _may_raise_default(context, everybody, version)):
        _report_nothing(context, [one.user for one in chosen], version, canary=bool(users))
        return []
    trials = _try_version(context, found)
    if gate_only:
        found.say_forecasts()
        return trials
    plan = _plan_bump(context, found, include_busy=include_busy, canary=bool(users))
    context.journals.save(plan)
    resume.move_waiting(context, plan, include_busy=include_busy)
    return trials


def _may_raise_default(context: Context, everybody: Sequence[Server], version: str) -> bool:
    """Tell whether the default is lower, and not since nobody could be moved."""
    if not versions.is_lower(context.installations.version_of(GLOBAL), version):
        return False
    programs = []
    for one in everybody:
        with suppress(Failure):
            programs.append(context.installations.version_of(one.user))
    return not programs or any(not versions.is_lower(one, version) for one in programs)


def _report_nothing(context: Context, users: Sequence[str], version: str, *, canary: bool) -> None:
    """Say that nobody is to be moved."""
    if not canary:
        resume.report_versions(context, users, version)
        return
    for user in users:
        if user not in context.left_out:
            context.say(f"{user}: on {context.installations.version_of(user)} already")


def _is_continued(left: Journal, version: str, users: Sequence[str]) -> bool:
    """Tell whether the bump that has not ended is the one that is wanted."""
    theirs = set(users) <= set(left.users(*journal.PHASES)) if left.canary else not users
    return (left.kind, left.version) == ("bump", version) and theirs and bool(users) == left.canary


def _ends_canary(context: Context, left: Journal, version: str, users: Sequence[str]) -> bool:
    """End the bump of a canary who waits, where all are to follow now; tell whether it is so."""
    if users or not left.canary or left.version != version or left.users(*journal.UNDER_WAY):
        return False
    finish_journal(context, left, "stopped")
    return True


def _refuse_another(context: Context, left: Journal, version: str, *, by_timer: bool) -> None:
    """Raise Failure, since another bump has not ended; a timer's pin may wait."""
    moves = journal.summarize_moves(left.moves)
    text = f"the {left.kind} to {left.version} has not ended ({moves}): t3-autoupdate drain"
    if not by_timer or versions.is_lower(left.version, version):
        raise Failure(f"{text} continues it; with --include-busy it does not wait")
    # by hand, beyond the pin, and somebody is at work: no failure of the night
    context.say(f"{text} continues it")


def _try_version(context: Context, found: Candidates) -> list[Trial]:
    """Fetch the version, and have the gate try it. Raises Failure and Cancelled."""
    preflight.check_disk_space(context.installations, found.version, found.known)
    context.raise_if_stopped(UNTOUCHED)
    spec = context.settings.npm_spec.format(version=found.version)
    npm.fetch_version(context.installations, found.version, spec, context.say)
    return run_gate(context, found)


def _plan_bump(context: Context, found: Candidates, *, include_busy: bool, canary: bool) -> Journal:
    """Seal a snapshot of each account's running server, and plan the moves. Raises as above."""
    prebump, version = dict[str, str](), found.version

    def seal(one: Server) -> None:
        context.raise_if_stopped(UNTOUCHED)
        if one.read_activity() is not None:
            prebump[one.user] = context.snapshots.take_snapshot(one.user, f"prebump-{version}").name

    found.keep(seal)
    with_data = [one for one in found.accounts if one.user in prebump]
    busy = {} if include_busy else find_busy(with_data)
    moves = [_plan_move(context, one, version, busy.get(one.user, "")) for one in with_data]
    for one in found.accounts:
        if one.user not in prebump:
            context.installations.link_version(one.user, version)
            context.say(f"{one.user}: on {version}; there is no database yet")
    moves.sort(key=lambda one: one.phase != journal.WAITING)
    return Journal("bump", version, now(), tuple(moves), prebump=prebump, canary=canary)


def run_gate(context: Context, found: Candidates) -> list[Trial]:
    """Try a version on an empty state and on copies of all data.

    Who alone is to blame for a failure is left out. Raises Failure where it is turned away, and
    Cancelled.
    """
    installations, version = context.installations, found.version

    def keep_known(one: Server) -> None:
        newest, live = next(filter(snapshots.is_good, found.known[one.user]), None), None
        if one.user in found.with_data:
            live = one.read_activity()
        if live is not None and (newest is None or not _is_of_now(newest, live)):
            # else nothing would be known of this one's data, as it is now
            context.snapshots.take_snapshot(one.user, None)

    found.keep(keep_known)
    users, trials = [one.user for one in found.accounts], []
    for trial in gate.try_version(
        installations.prefix(version),
        users,
        partial(_write_newest, context),
        watch_seconds=context.settings.watch,
        patience=context.settings.patience,
        say=context.say,
    ):
        trials.append(trial)
        _report_trial(context, version, trial)
        context.raise_if_stopped(UNTOUCHED)
    verdict = judge_trials(trials)
    if verdict.failed is not None:
        at = verdict.failed.step
        raise Failure(f"{version} was turned away by the gate at {at}; {UNTOUCHED}")
    for one in verdict.left_out:
        found.leave_out(one.subject, f"{version} fails on its data at {one.step}: {one.reason}")
    empty = next(trial for trial in trials if trial.subject == EMPTY)
    learn.keep_about(installations, version, empty)
    return trials


def _is_of_now(newest: Manifest, live: Activity) -> bool:
    """Tell whether a snapshot holds each database, with the migrations that it has seen by now."""
    kept = {one.file: (one.t3_level, one.ledger or one.census.ledger) for one in newest.databases}
    return all(kept.get(one.file) == (one.level, one.ledger) for one in live.databases)


def _write_newest(context: Context, user: str, folder: Path) -> str:
    """Write an account's newest good snapshot, as its program works with it."""
    own = context.installations.about(context.installations.version_of(user)).database
    return context.snapshots.write_newest(user, folder, own)


def _report_trial(context: Context, version: str, trial: Trial) -> None:
    on = "an empty state" if trial.subject == EMPTY else f"the data of {trial.subject}"
    if trial.passed:
        before = f"{trial.level_before} to " if trial.level_before else ""
        how = f"level {before}{trial.level_after}, login by {trial.endpoint}"
        context.say(f"gate: {version} passed on {on} ({how})")
        return
    context.warn(f"gate: {version} failed on {on} at {trial.step}: {trial.reason}")
    for line in trial.log:
        context.warn(f"gate:   {line}")


def _plan_move(context: Context, one: Server, version: str, why: str) -> Move:
    """Plan an account's move; `why` it is to come later, if so."""
    return Move(
        user=one.user,
        before=context.installations.version_of(one.user),
        program=version,
        label=f"prebump-{version}",
        phase=journal.DEFERRED if why else journal.WAITING,
        reason=why,
    )
