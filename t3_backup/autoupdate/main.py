"""Run `t3-autoupdate`: settings, signals, exit codes; `commands` has what each subcommand does.

Exit codes: 0 all well; 1 something is not, and each account is on a program and data that fit;
2 wrong use or configuration; 75 another one is at work. A command that was stopped by a signal
cleans up, and ends by that signal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from t3_backup import settings as backup_settings
from t3_backup.autoupdate import settings
from t3_backup.autoupdate.commands import COMMANDS
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.parser import parse_arguments
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import EXIT_OK, Cancelled, Failure, UsageError, explain
from t3_backup.output.console import Console, check_output
from t3_backup.store.known_stores import KnownStores
from t3_backup.system import signals, standard_streams
from t3_backup.text import ERROR, INFO, WARNING

_NAME = "t3-autoupdate"


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    defaults: Path = settings.DEFAULTS_FILE,
) -> int:
    """Run the command and return its exit code; an error is one line."""
    standard_streams.open_closed()
    stop = signals.StopRequest()
    try:
        args = parse_arguments(sys.argv[1:] if argv is None else list(argv))
        if os.geteuid() != 0:
            raise UsageError("this needs root")
        values = settings.load(environ, defaults)
        stop = signals.stop_on_signals()
        context = _make_context(values, environ, stop, as_json=args.json)
        code = COMMANDS[args.command or "run"](context, args)
        if context.left_out and code == EXIT_OK:
            code = Failure.exit_code
    except (Failure, OSError) as error:
        Console(sys.stderr).line(ERROR, f"{_NAME}: {explain(error)}")
        code = error.exit_code if isinstance(error, Failure) else Failure.exit_code
        if not isinstance(error, Cancelled):
            return code  # what went wrong does so for whoever asked for an end, too
    stop.end()
    return check_output(_NAME, code)


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
        snapshots=Snapshots(theirs.dest, KnownStores.own()),
        say=lambda text: out.line(INFO, f"{_NAME}: {text}"),
        warn=lambda text: out.line(WARNING, f"{_NAME}: WARN: {text}"),
        stopping=stop,
    )


if __name__ == "__main__":
    sys.exit(main())
