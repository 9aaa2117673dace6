"""Run `t3-autoupdate`: turn arguments into calls, one function a subcommand.

Exit codes: 0 all well; 1 something is not, and each account is on a program and data that fit;
2 wrong use or configuration; 75 another one is at work. A command that was stopped by a signal
cleans up, and ends by that signal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from t3_backup import settings as backup_settings
from t3_backup.autoupdate import (
    adopt,
    freeze,
    journal,
    login_checks,
    metrics,
    resume,
    rollback,
    settings,
    stored_versions,
)
from t3_backup.autoupdate.command_lock import hold_lock
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate.verdict import Trial
from t3_backup.autoupdate.installations import GLOBAL
from t3_backup.autoupdate.journal_runner import now
from t3_backup.autoupdate.own_program import why_left_alone
from t3_backup.autoupdate.parser import parse_arguments
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.autoupdate.stale import put_stale_aside
from t3_backup.autoupdate.status import read_status
from t3_backup.autoupdate.upgrade import bump_accounts
from t3_backup.cli.prompt import confirm
from t3_backup.errors import EXIT_OK, Cancelled, Failure, UsageError, explain
from t3_backup.output.console import Console, print_document
from t3_backup.system import signals
from t3_backup.text import ERROR, INFO, WARNING

_NAME = "t3-autoupdate"
_BY_HAND = "; kept so by hand"


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    defaults: Path = settings.DEFAULTS_FILE,
) -> int:
    """Run the command and return its exit code; an error is one line."""
    stop = signals.StopRequest()
    try:
        args = parse_arguments(sys.argv[1:] if argv is None else list(argv))
        if os.geteuid() != 0:
            raise UsageError("this needs root")
        values = settings.load(environ, defaults)
        stop = signals.stop_on_signals()
        context = _make_context(values, environ, stop, as_json=args.json)
        commands: dict[str, Callable[[Context, argparse.Namespace], int]] = {
            "run": _run,
            "drain": _drain,
            "resume": _resume,
            "rollback": _rollback,
            "check": _check,
            "status": _status,
            "adopt": _adopt,
            "versions": _versions,
            "put-aside": _put_aside,
            "freeze": _freeze,
            "thaw": _thaw,
        }
        code = commands[args.command or "run"](context, args)
        if context.left_out and code == EXIT_OK:
            code = Failure.exit_code
    except (Failure, OSError) as error:
        Console(sys.stderr).line(ERROR, f"{_NAME}: {explain(error)}")
        code = error.exit_code if isinstance(error, Failure) else Failure.exit_code
        if not isinstance(error, Cancelled):
            return code  # what went wrong does so for whoever asked for an end, too
    stop.end()
    return code


def _make_context(
    values: settings.Settings,
    environ: Mapping[str, str],
    stop: signals.StopRequest,
    *,
    as_json: bool,
) -> Context:
    theirs = backup_settings.load({}, environ)
    out = Console(sys.stderr if as_json else sys.stdout)
    return Context(
        settings=values,
        user_map=theirs.map,
        textfiles=theirs.textfiles,
        snapshots=Snapshots(theirs.dest),
        say=lambda text: out.line(INFO, f"{_NAME}: {text}"),
        warn=lambda text: out.line(WARNING, f"{_NAME}: WARN: {text}"),
        stopping=stop,
    )


@contextlib.contextmanager
def _locked(context: Context) -> Iterator[None]:
    """Keep other commands waiting; write the metrics at the end."""
    with hold_lock(context.settings.root, context.say):
        try:
            yield
        finally:
            metrics.write_metrics(context)


def _run(context: Context, args: argparse.Namespace) -> int:
    version = args.to or context.settings.pin
    by_timer = args.to is None and not args.dry_run
    trials: list[Trial] = []
    for user in args.users:
        _check_user(context, user)
    if not (by_timer and freeze.report_frozen(context.settings.freeze, context.say)):
        with _locked(context):
            trials = bump_accounts(
                context,
                version,
                asked=args.to is not None,
                gate_only=args.dry_run,
                include_busy=args.include_busy,
                users=list(dict.fromkeys(args.users)),
            )
    found = read_status(context)
    touched = [] if args.dry_run else [one for one in found.accounts if one.is_touched]
    for one in touched:
        context.warn(f"{one.user}: {one.trouble}")
    if args.json:
        tried = {"version": version, "trials": [asdict(one) for one in trials]}
        print_document(asdict(found) | tried)
    return Failure.exit_code if touched else EXIT_OK


def _drain(context: Context, args: argparse.Namespace) -> int:
    with _locked(context):
        resume.resume_interrupted(context)
        resume.drain_deferred(context, include_busy=args.include_busy)
    return _print_status(context, args)


def _resume(context: Context, args: argparse.Namespace) -> int:
    with _locked(context):
        plan = context.journals.load()
        resume.resume_interrupted(context)
    if plan is None or not plan.users(*journal.UNDER_WAY):
        context.say("nothing was interrupted")
    return _print_status(context, args)


def _print_status(context: Context, args: argparse.Namespace) -> int:
    """Print with --json what `status` says after what was done."""
    if args.json:
        print_document(asdict(read_status(context)))
    return EXIT_OK


def _rollback(context: Context, args: argparse.Namespace) -> int:
    left: list[str] = []
    _check_user(context, args.user)
    with _locked(context):
        resume.resume_interrupted(context)
        if args.undo:
            plans, left = rollback.plan_undo(context, args.user)
        else:
            users = [args.user] if args.user else context.users()
            plans, left = rollback.plan_rollback(context, users, args.to)
        for why in left:
            context.warn(f"{why}: nothing is done with this one")
        if args.dry_run:
            for plan in plans:
                for line in plan.lines:
                    context.say(line)
        else:
            kind = "undo" if args.undo else "rollback"
            rollback.execute_plans(context, plans, kind, partial(_ask_consent, args))
    if args.json:
        planned = [{"move": asdict(one.move), "lines": one.lines} for one in plans]
        print_document(asdict(read_status(context)) | {"plans": planned})
    return Failure.exit_code if left else EXIT_OK


def _check_user(context: Context, user: str | None) -> None:
    """Raise UsageError for a user without a line in the map and a program."""
    if user is not None and user not in (*context.users(), *context.installations.linked_users()):
        raise UsageError(f"{user} is not in {context.user_map}")


def _ask_consent(args: argparse.Namespace) -> None:
    """Ask whether to do it. Raises UsageError where nobody can be asked, Failure for a no."""
    confirm("Do that?", "a rollback replaces live databases", yes=args.yes, silent=args.json)


def _check(context: Context, args: argparse.Namespace) -> int:
    """Log in to every server as a browser does; a user who was named must have one."""
    _check_user(context, args.user)
    context.installations.version_of(GLOBAL)
    users = [args.user] if args.user else context.users()
    if not users:
        context.say(f"{context.user_map} names no account")
    try:
        found = login_checks.check_logins(context, users, required=args.user is not None)
    finally:
        metrics.write_metrics(context)
    if args.json:
        print_document({"accounts": {one.user: one.as_json() for one in found}})
    return EXIT_OK if all(one.is_well for one in found) else Failure.exit_code


def _status(context: Context, args: argparse.Namespace) -> int:
    found = read_status(context)
    if args.json:
        print_document(asdict(found))
    else:
        for wants_a_look, line in found.lines():
            (context.warn if wants_a_look else context.say)(line)
    return EXIT_OK if found.is_well else Failure.exit_code


def _tell_refused(context: Context, user: str, why: str) -> None:
    """Tell of an account that could not be taken over; all others were."""
    context.left_out.add(user)
    context.warn(f"{user}: {why}")


def _adopt(context: Context, args: argparse.Namespace) -> int:
    with _locked(context):
        version = adopt.adopt_accounts(context, partial(_tell_refused, context))
        servers = context.servers()
        context.say(f"T3 {version} is the program of every account without one of its own")
        for why in filter(None, (why_left_alone(one, context.installations) for one in servers)):
            context.warn(why)
    return _print_status(context, args)


def _versions(context: Context, args: argparse.Namespace) -> int:
    if args.remove:
        with _locked(context):
            stored_versions.remove_versions(context, args.versions)
    found = stored_versions.read_versions(context)
    if args.json:
        print_document({"versions": [asdict(one) for one in found]})
    elif not args.remove:
        for one in found:
            context.say(one.line())
        if not found:
            context.say(f"there is no version in {context.installations.root}")
    return EXIT_OK


def _put_aside(context: Context, args: argparse.Namespace) -> int:
    _check_user(context, args.user)
    with _locked(context):
        own = context.installations.about(context.installations.version_of(args.user)).database
        said = put_stale_aside(context.server(args.user), own)
    context.say(f"{args.user}: {said or 'no newer T3 has made a database beside its own'}")
    return _print_status(context, args)


def _freeze_file(context: Context, args: argparse.Namespace) -> Path:
    """Name the file of the account that was named, or else that of all."""
    _check_user(context, args.user)
    if args.user is None:
        return context.settings.freeze
    return freeze.account_file(context.settings.root, args.user)


def _freeze(context: Context, args: argparse.Namespace) -> int:
    path, why = _freeze_file(context, args), " ".join(args.reason)
    before = freeze.read_reason(path)
    if before is not None and not why:
        # why an account went back must not be lost by that, and no later success may end it
        if not before.endswith(_BY_HAND):
            freeze.freeze(path, before + _BY_HAND)
        context.say(f"it is frozen already: {before}")
    else:
        freeze.freeze(path, f"{now()} {why or 'by hand'}")
        context.say(f"frozen: {path}" if before is None else f"frozen: {path}; until now: {before}")
    metrics.write_metrics(context)
    return _print_status(context, args)


def _thaw(context: Context, args: argparse.Namespace) -> int:
    was_frozen = freeze.thaw(_freeze_file(context, args))
    metrics.write_metrics(context)
    who = f"{args.user}: " if args.user else ""
    context.say(f"{who}thawed" if was_frozen else f"{who}it was not frozen")
    for user, why in freeze.frozen_accounts(context.settings.root).items():
        end = f"t3-autoupdate thaw --user {user}"
        context.say(f"{user}: stays frozen by itself: {why}; next: {end}")
    return _print_status(context, args)


if __name__ == "__main__":
    sys.exit(main())
