"""The command `hooks`: call the failure hooks, for a failed run or to try them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from typing import Any

from t3_backup.errors import EXIT_OK, Failure
from t3_backup.monitor.failure import call_hooks_for, describe_end_by_systemd
from t3_backup.output.console import Console
from t3_backup.settings import Settings

_MOST_BYTES = 64 << 20  # of what a run has left


def hooks_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `hooks`: call them; exit code 1 where one fails."""
    left = _read(args.document) if args.document is not None else None
    ending = describe_end_by_systemd(os.environ, left)
    well = call_hooks_for(ending, values, Console(sys.stdout))
    return EXIT_OK if well else Failure.exit_code


def _read(path: str) -> dict[str, Any] | None:
    """Read what a run has left; None where that can't be read as such."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        with open(path, "rb") as file:
            value = json.loads(file.read(_MOST_BYTES))
        if (
            isinstance(value, dict)
            and isinstance(value.get("run"), str)
            and isinstance(value.get("accounts"), list)
        ):
            return value
    return None
