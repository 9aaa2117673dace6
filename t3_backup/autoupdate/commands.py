"""Do what each subcommand of `t3-autoupdate` is for, one function each; all return an exit code."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from t3_backup.accounts import read_map
from t3_backup.autoupdate import (
    freeze,
    journal,
    login_checks,
    metrics,
    resume,
    rollback,
    rollback_plan,
)
from t3_backup.autoupdate.command_lock import hold_lock
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate.verdict import Trial
from t3_backup.autoupdate.journal_runner import now
from t3_backup.autoupdate.programs import adopt, stored_versions
from t3_backup.autoupdate.programs.installations import GLOBAL
from t3_backup.autoupdate.programs.own_program import why_left_alone
from t3_backup.autoupdate.stale import put_stale_aside
from t3_backup.autoupdate.status import read_status
from t3_backup.autoupdate.upgrade import bump_accounts
from t3_backup.cli.prompt import confirm
from t3_backup.errors import EXIT_OK, Failure, UsageError
from t3_backup.output.console import print_document
from t3_backup.text import quote

_BY_HAND = "; kept so by hand"


@contextlib.contextmanager
def _locked(context: Context) -> Iterator[bool]:
    """Keep other commands waiting, tell whether npm was interrupted; in the end write metrics."""
    with hold_lock(context.settings.root, context.say) as interrupted:
        try:
            yield interrupted
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
    with _locked(context) as npm_was:
        plan = context.journals.load()
        resume.resume_interrupted(context)
    if not npm_was and (plan is None or not plan.users(*journal.UNDER_WAY)):
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
            plans, left = rollback_plan.plan_undo(context, args.user)
        else:
            users = [args.user] if args.user else context.users()
            plans, left = rollback_plan.plan_rollback(context, users, args.to)
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
    all_known = args.user is not None or not read_map(context.user_map).passed_over
    if not users:
        context.say(f"{context.user_map} names no account")
    try:
        found = login_checks.check_logins(context, users, required=args.user is not None)
    finally:
        metrics.write_metrics(context)
    if args.json:
        print_document({"accounts": {one.user: one.as_json() for one in found}})
    return EXIT_OK if all_known and all(one.is_well for one in found) else Failure.exit_code


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
        end = f"t3-autoupdate thaw --user {quote(user)}"
        context.say(f"{user}: stays frozen by itself: {why}; next: {end}")
    return _print_status(context, args)


COMMANDS: dict[str, Callable[[Context, argparse.Namespace], int]] = {
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
