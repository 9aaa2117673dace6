"""Bring all accounts to another version: try it, seal snapshots, begin the moves.

Nothing is changed before the gate has passed and every account has a proven snapshot. `resume`
moves them, later those who have an agent at work, and ends what was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from t3_backup.autoupdate import adopt, freeze, journal, npm, preflight, resume, snapshots
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate import gate, learn
from t3_backup.autoupdate.gate.verdict import EMPTY, Trial
from t3_backup.autoupdate.installations import GLOBAL
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.journal_runner import now
from t3_backup.autoupdate.preflight import UNTOUCHED
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
) -> list[Trial]:
    """Bring every account to `version`, and return what the gate found.

    `asked`: by hand, and not as the pin has it. Raises Failure where an account failed, Cancelled
    where somebody wanted an end, and OSError; each account is then on a program and data that fit.
    """
    if not gate_only:
        freeze.raise_if_frozen(context.settings.freeze)
    resume.resume_interrupted(context)
    if (left := context.journals.load()) is not None:
        if not gate_only and left.version == version and left.kind == "bump":
            resume.drain_deferred(context, include_busy=include_busy)
        else:
            by_timer = not asked and not gate_only
            _refuse_another(context, left, version, by_timer=by_timer)
        return []
    if not asked and not context.users():
        context.say(f"{context.user_map} names no account: nothing is done")
        return []
    if not gate_only:
        adopt.adopt_accounts(context)
    everybody = context.servers()
    lower = [one for one in everybody if _is_to_move(context, one.user, version, asked=asked)]
    moving = [one for one in lower if not _is_frozen(context, one.user)]
    found = [one for one in moving if not _lacks_database(context, one)]
    if not found and not _is_lower(context.installations.version_of(GLOBAL), version):
        resume.report_versions(context, [one.user for one in everybody], version)
        return []
    preflight.check_ports(everybody)
    known = {one.user: context.snapshots.list_snapshots(one.user) for one in found}
    preflight.check_disk_space(context.settings.root, found, known)
    context.raise_if_stopped(UNTOUCHED)
    spec = context.settings.npm_spec.format(version=version)
    npm.fetch_version(context.installations, version, spec, context.say)
    trials = run_gate(context, version, found, known)
    if gate_only:
        return trials
    prebump = {}
    for one in found:
        context.raise_if_stopped(UNTOUCHED)
        if one.read_activity() is not None:
            prebump[one.user] = context.snapshots.take_snapshot(one.user, f"prebump-{version}").name
    with_data = [one for one in found if one.user in prebump]
    busy = {} if include_busy else find_busy(with_data)
    moves = [_plan_move(context, one, version, busy.get(one.user, "")) for one in with_data]
    for one in found:
        if one.user not in prebump:
            context.installations.link_version(one.user, version)
            context.say(f"{one.user}: on {version}; there is no database yet")
    moves.sort(key=lambda one: one.phase != journal.WAITING)
    plan = Journal("bump", version, now(), tuple(moves), prebump=prebump)
    context.journals.save(plan)
    resume.move_waiting(context, plan)
    return trials


def _refuse_another(context: Context, left: Journal, version: str, *, by_timer: bool) -> None:
    """Raise Failure, since another bump has not ended; a timer's pin may wait."""
    moves = journal.summarize_moves(left.moves)
    text = f"the {left.kind} to {left.version} has not ended ({moves}): t3-autoupdate drain"
    if not by_timer or _is_lower(left.version, version):
        raise Failure(f"{text} continues it; with --include-busy it does not wait")
    # by hand, beyond the pin, and somebody is at work: no failure of the night
    context.say(f"{text} continues it")


def _is_lower(one: str, other: str) -> bool:
    return versions.version_key(one) < versions.version_key(other)


def _is_frozen(context: Context, user: str) -> bool:
    """Tell whether an account is frozen alone, and say that it stays."""
    why = context.why_frozen(user)
    if why is not None:
        before = context.installations.version_of(user)
        context.warn(
            f"{user}: stays on {before}: frozen: {why}; next: t3-autoupdate thaw --user {user}"
        )
    return why is not None


def _lacks_database(context: Context, one: Server) -> bool:
    """Tell whether an account's database has gone, and say that it stays."""
    why = ""
    if one.read_activity() is None:
        why = preflight.why_no_database(one, context.snapshots)
    if why:
        before = context.installations.version_of(one.user)
        context.warn(f"{one.user}: stays on {before}: {why}")
    return bool(why)


def _is_to_move(context: Context, user: str, version: str, *, asked: bool) -> bool:
    """Tell whether an account is on a lower version. Raises Failure where one is above it."""
    current = context.installations.version_of(user)
    if not _is_lower(version, current):
        return current != version
    text = f"{user} is on {current}, above {version}, which can't work with its database"
    if asked:
        mend = f"t3-autoupdate rollback --to {version}"
        raise Failure(f"{text}; to go back with the data of then: {mend}")
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
        if live is not None and (newest is None or not _is_of_now(newest, live)):
            # else nothing would be known of this one's data, as it is now
            context.snapshots.take_snapshot(one.user, None)
    users, trials = [one.user for one in found], []
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
        if not trial.passed:
            raise Failure(f"{version} was turned away by the gate at {trial.step}; {UNTOUCHED}")
        context.raise_if_stopped(UNTOUCHED)
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
