"""`t3-autoupdate`: arguments to calls, one function a subcommand; the exit code is the verdict.

0 all well; 1 something is not, and each account is on a program and data that fit; 2 wrong use or configuration; 75 another one
is at work. A command that was stopped by a signal cleans up, and ends by that signal.
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
from t3_backup.autoupdate import freeze, journal, metrics, rollback, settings, upgrade
from t3_backup.autoupdate import status as statuses
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate.gate import Trial
from t3_backup.autoupdate.installations import GLOBAL
from t3_backup.autoupdate.parser import parse_arguments
from t3_backup.autoupdate.snapshots import Backups
from t3_backup.cli.prompt import confirm
from t3_backup.errors import EXIT_OK, Cancelled, Failure, UsageError, explain
from t3_backup.output.console import Console, print_document
from t3_backup.system import signals
from t3_backup.text import ERROR, INFO, WARNING

_NAME = "t3-autoupdate"


def main(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ, defaults: Path = settings.DEFAULTS_FILE
) -> int:
    """Run the command and return its exit code; an error is one line on standard error."""
    stop = signals.StopRequest()
    try:
        args = parse_arguments(sys.argv[1:] if argv is None else list(argv))
        if os.geteuid() != 0:
            raise UsageError("this needs root")
        values = settings.load(environ, defaults)
        stop = signals.stop_on_signals()
        machine = _machine(values, environ, stop, as_json=args.json)
        commands: dict[str, Callable[[Context, argparse.Namespace], int]] = {
            "run": _run,
            "drain": _drain,
            "resume": _resume,
            "rollback": _rollback,
            "check": _check,
            "status": _status,
            "adopt": _adopt,
            "freeze": _freeze,
            "thaw": _thaw,
        }
        code = commands[args.command or "run"](machine, args)
    except (Failure, OSError) as error:
        Console(sys.stderr).line(ERROR, f"{_NAME}: {explain(error)}")
        code = error.exit_code if isinstance(error, Failure) else Failure.exit_code
        if not isinstance(error, Cancelled):
            return code  # what went wrong does so for whoever asked for an end, too
    stop.end()
    return code


def _machine(values: settings.Settings, environ: Mapping[str, str], stop: signals.StopRequest, *, as_json: bool) -> Context:
    theirs = backup_settings.load({}, environ)
    out = Console(sys.stderr if as_json else sys.stdout)
    return Context(
        settings=values,
        user_map=theirs.map,
        textfiles=theirs.textfiles,
        backups=Backups(theirs.dest),
        say=lambda text: out.line(INFO, f"{_NAME}: {text}"),
        warn=lambda text: out.line(WARNING, f"{_NAME}: WARN: {text}"),
        stopping=stop,
    )


@contextlib.contextmanager
def _alone(machine: Context) -> Iterator[None]:
    """One command at a time; the metrics tell what became of it."""
    with machine.locked():
        try:
            yield
        finally:
            metrics.write(machine)


def _run(machine: Context, args: argparse.Namespace) -> int:
    version = args.to or machine.settings.pin
    by_timer = args.to is None and not args.dry_run
    trials: list[Trial] = []
    if not (by_timer and machine.is_frozen()):
        with _alone(machine):
            trials = upgrade.bump(
                machine, version, asked=args.to is not None, gate_only=args.dry_run, include_busy=args.include_busy
            )
    found = statuses.status(machine)
    above = [] if args.dry_run else [one for one in found.accounts if one.is_above]
    for one in above:
        machine.warn(f"{one.user}: {one.trouble}")
    if args.json:
        print_document(found.as_json() | {"version": version, "trials": [asdict(one) for one in trials]})
    return Failure.exit_code if above else EXIT_OK


def _document(machine: Context) -> dict[str, object]:
    """What `status --json` says, after what was done."""
    return statuses.status(machine).as_json()


def _drain(machine: Context, args: argparse.Namespace) -> int:
    with _alone(machine):
        upgrade.resume(machine)
        upgrade.drain(machine, include_busy=args.include_busy)
    return _done(machine, args)


def _resume(machine: Context, args: argparse.Namespace) -> int:
    with _alone(machine):
        plan = machine.journals.load()
        upgrade.resume(machine)
    if plan is None or not plan.users(*journal.UNDER_WAY):
        machine.say("nothing was interrupted")
    return _done(machine, args)


def _done(machine: Context, args: argparse.Namespace) -> int:
    if args.json:
        print_document(_document(machine))
    return EXIT_OK


def _rollback(machine: Context, args: argparse.Namespace) -> int:
    left: list[str] = []
    _must_be_known(machine, args.user)
    with _alone(machine):
        upgrade.resume(machine)
        if args.undo:
            plans = rollback.plan_undo(machine, args.user)
        else:
            plans, left = rollback.plan_back(machine, [args.user] if args.user else machine.users(), args.to)
        for why in left:
            machine.warn(f"{why}: nothing is done with this one")
        if args.dry_run:
            for plan in plans:
                for line in plan.lines:
                    machine.say(line)
        else:
            rollback.carry_out(machine, plans, "undo" if args.undo else "rollback", partial(_must_agree, args))
    if args.json:
        print_document(_document(machine) | {"plans": [{"move": asdict(one.move), "lines": one.lines} for one in plans]})
    return Failure.exit_code if left else EXIT_OK


def _must_be_known(machine: Context, user: str | None) -> None:
    """Raises UsageError for one who is neither in the map nor has a program of his own."""
    if user is not None and user not in (*machine.users(), *machine.programs.linked()):
        raise UsageError(f"{user} is not in {machine.user_map}")


def _must_agree(args: argparse.Namespace) -> None:
    """Raises UsageError where nobody can be asked, Failure where he says no."""
    confirm("Do that?", "a rollback replaces live databases", yes=args.yes, silent=args.json)


def _check(machine: Context, args: argparse.Namespace) -> int:
    """Log in to every server as a browser does; who was asked for by his name must have one."""
    _must_be_known(machine, args.user)
    machine.program_of(GLOBAL)
    found: dict[str, dict[str, object]] = {}
    users = [args.user] if args.user else machine.users()
    if not users:
        machine.say(f"{machine.user_map} names nobody")
    for user in users:
        machine.must_go_on("not every server was looked at")
        try:
            instance = machine.instance(user)
            if not instance.runs() and args.user is None:
                machine.say(f"{user}: no server runs")
                continue
            endpoint = instance.pair(machine.program(user), machine.settings.patience)
            machine.say(f"{user}: login by {endpoint}")
            found[user] = {"paired": True, "endpoint": endpoint}
        except Failure as failure:
            machine.warn(str(failure))
            found[user] = {"paired": False, "reason": str(failure)}
    if args.json:
        print_document({"accounts": found})
    return EXIT_OK if all(one["paired"] for one in found.values()) else Failure.exit_code


def _status(machine: Context, args: argparse.Namespace) -> int:
    found = statuses.status(machine)
    if args.json:
        print_document(found.as_json())
    else:
        for wants_a_look, line in found.lines():
            (machine.warn if wants_a_look else machine.say)(line)
    return EXIT_OK if found.is_well else Failure.exit_code


def _adopt(machine: Context, args: argparse.Namespace) -> int:
    with _alone(machine):
        version = machine.adopt()
        machine.say(f"T3 {version} is the program of whoever has none of his own")
    return _done(machine, args)


def _freeze(machine: Context, args: argparse.Namespace) -> int:
    path, why = machine.settings.freeze, " ".join(args.reason)
    before = freeze.reason(path)
    if before is not None and not why:  # why an account went back must not be lost by that
        machine.say(f"it is frozen already: {before}")
    else:
        freeze.freeze(path, f"{upgrade.now()} {why or 'by hand'}")
        machine.say(f"frozen: {path}" if before is None else f"frozen: {path}; until now: {before}")
    metrics.write(machine)
    return _done(machine, args)


def _thaw(machine: Context, args: argparse.Namespace) -> int:
    was_frozen = freeze.thaw(machine.settings.freeze)
    metrics.write(machine)
    machine.say("thawed" if was_frozen else "it was not frozen")
    return _done(machine, args)


if __name__ == "__main__":
    sys.exit(main())
