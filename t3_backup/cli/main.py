"""`t3-backup-state`: arguments to calls, one function a subcommand; the exit code is the verdict.

0 all well; 1 at least one account or snapshot is not; 2 wrong use or configuration; 75 another run holds the store.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from t3_backup import settings
from t3_backup.cli import list as list_snapshots
from t3_backup.cli import nagios, pin, prune, restore, run
from t3_backup.cli.accept import accept_command
from t3_backup.cli.doctor import doctor_command
from t3_backup.cli.hooks import hooks_command
from t3_backup.cli.parser import build_parser
from t3_backup.cli.report import report_command
from t3_backup.cli.status import status_command
from t3_backup.cli.usage import usage_command
from t3_backup.cli.verify import verify_command
from t3_backup.errors import Failure
from t3_backup.output.console import say_error
from t3_backup.settings import Settings


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
    args = build_parser().parse_args(words)
    if args.command is None:
        args = build_parser().parse_args(["run"])
    flags = {name: getattr(args, name, None) for name in ("dest", "map", "keep", "timeout", "jobs")}
    # A run that failed for its settings is told of, too.
    values = settings.load(flags, environ, defaults, forgiving=args.command == "hooks")
    commands: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
        "run": run.run_command,
        "list": list_snapshots.list_command,
        "report": report_command,
        "verify": verify_command,
        "restore": restore.restore_command,
        "accept": accept_command,
        "pin": pin.pin_command,
        "unpin": pin.unpin_command,
        "prune": prune.prune_command,
        "du": usage_command,
        "status": status_command,
        "doctor": doctor_command,
        "hooks": hooks_command,
    }
    return commands[args.command](args, values)


if __name__ == "__main__":
    sys.exit(main())
