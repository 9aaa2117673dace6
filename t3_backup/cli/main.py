"""Run `t3-backup-state`: read the command line, and call the command's module.

The exit code is the verdict: 0 all well; 1 at least one account or snapshot is not; 2 wrong use or
configuration; 75 another run holds the store.

A command's module is imported when it is called for: starting Python is most of what a small
command costs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from t3_backup.cli.parser import PROGRAM, asks_for_check, parse_arguments
from t3_backup.errors import Failure
from t3_backup.system import standard_streams

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from t3_backup.settings import Settings

_MODULES = {"unpin": "pin"}  # of a command that shares its module with another
_FLAGS = ("dest", "map", "keep", "timeout", "jobs")  # which set a setting


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    defaults: Path | None = None,
) -> int:
    """Run the command, say an error in one line, and return the exit code."""
    standard_streams.open_closed()
    words = sys.argv[1:] if argv is None else list(argv)
    if asks_for_check(words):
        from t3_backup.cli.status import answer_check

        return answer_check(lambda: _run_command(words, environ, defaults))
    try:
        code = _run_command(words, environ, defaults)
    except (Failure, OSError) as error:
        from t3_backup.output.console import say_error

        return say_error(error)
    if standard_streams.find_lost() is None:
        return code
    from t3_backup.output.console import check_output

    return check_output(PROGRAM, code)


def find_command(name: str) -> Callable[[argparse.Namespace, Settings], int]:
    """Import the module of a command and return its function."""
    word = name.replace("-", "_")
    module = importlib.import_module(f"t3_backup.cli.{_MODULES.get(word, word)}")
    command: Callable[[argparse.Namespace, Settings], int] = getattr(module, f"{word}_command")
    return command


def _run_command(words: Sequence[str], environ: Mapping[str, str], defaults: Path | None) -> int:
    args = parse_arguments(words)
    from t3_backup import settings

    flags = {name: getattr(args, name, None) for name in _FLAGS}
    file = defaults or settings.DEFAULTS_FILE
    # A run that failed for its settings is told of, too.
    values = settings.load(flags, environ, file, forgiving=args.command == "hooks")
    return find_command(args.command)(args, values)


if __name__ == "__main__":
    sys.exit(main())
