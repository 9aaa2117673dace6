"""`t3-backup-state`: arguments to calls, one function a subcommand; the exit code is the verdict.

0 all well; 1 at least one account or snapshot is not; 2 wrong use or configuration; 75 another run holds the store.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from t3_backup import keeping, nagios, restoring, running, settings, showing, tidying
from t3_backup.arguments import parser
from t3_backup.doctor import checks, facts
from t3_backup.errors import EXIT_OK, Failure
from t3_backup.hooks_command import hooks_command
from t3_backup.output import console
from t3_backup.output.console import Console, say_error
from t3_backup.settings import Settings
from t3_backup.system import signals


def main(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ, defaults: Path = settings.DEFAULTS_FILE
) -> int:
    """Run the command and return its exit code; an error is one line on standard error."""
    words = sys.argv[1:] if argv is None else list(argv)
    if nagios.is_check(words):
        return nagios.guard(lambda: _command(words, environ, defaults))
    try:
        return _command(words, environ, defaults)
    except (Failure, OSError) as error:
        return say_error(error)


def _command(words: Sequence[str], environ: Mapping[str, str], defaults: Path) -> int:
    args = parser().parse_args(words)
    if args.command is None:
        args = parser().parse_args(["run"])
    flags = {name: getattr(args, name, None) for name in ("dest", "map", "keep", "timeout", "jobs")}
    # A run that failed for its settings is told of, too.
    values = settings.load(flags, environ, defaults, forgiving=args.command == "hooks")
    commands: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
        "run": running.run,
        "list": showing.show_list,
        "report": showing.show_report,
        "verify": showing.show_verify,
        "restore": restoring.put_back,
        "accept": keeping.accept,
        "pin": keeping.pin,
        "unpin": keeping.unpin,
        "prune": tidying.prune,
        "du": tidying.show_usage,
        "status": showing.show_status,
        "doctor": _doctor,
        "hooks": hooks_command,
    }
    return commands[args.command](args, values)


def _doctor(args: argparse.Namespace, values: Settings) -> int:
    out = Console(sys.stderr if args.json else sys.stdout)
    findings = checks.check_machine(facts.gather_facts(values, signals.stop_on_signals()), values)
    for finding in findings:
        out.line(finding.priority, finding.line())
    if args.json:
        console.print_document({"checks": [finding.as_json() for finding in findings]})
    failed = any(finding.status == "fail" for finding in findings)
    return Failure.exit_code if failed or out.broken else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
