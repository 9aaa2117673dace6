"""A check of Nagios' (or Icinga's) must answer in its own way whatever happens: one line on standard output, and 3 for unknown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from t3_backup.errors import Failure, explain
from t3_backup.monitor import status
from t3_backup.output.console import Console
from t3_backup.text import INFO

_OPTION = "--nagios"


def is_check(words: Sequence[str]) -> bool:
    """Whether a command line asks for one; the parser takes a beginning of the option for it, too."""
    return "status" in words and any(len(word) > 2 and _OPTION.startswith(word) for word in words)


def guard(check: Callable[[], int]) -> int:
    """The exit code of `check`; whatever ends it otherwise becomes a line that says UNKNOWN."""
    try:
        return check()
    except (Failure, OSError) as error:
        why = explain(error)
    except Exception as error:  # noqa: BLE001 - a mistake of ours is unknown, too, and a traceback nothing that a monitor reads
        why = f"internal error, please report it: {error!r}"
    Console(sys.stdout).line(INFO, status.plugin_line("UNKNOWN", why))
    return status.UNKNOWN
