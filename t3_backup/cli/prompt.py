"""Ask the person at the terminal before something is replaced or removed."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

from t3_backup.errors import Failure, UsageError
from t3_backup.system import standard_streams


def confirm(question: str, wrong_use: str, *, yes: bool, silent: bool) -> None:
    """Ask whoever sits at the terminal, unless they said `yes` before.

    Raises UsageError (`wrong_use`) where nobody can be asked, or it is to be `silent`; Failure
    where they say no; and OSError where they can't see what they are asked about.
    """
    if yes:
        return
    if not sys.stdin.isatty() or silent:
        raise UsageError(f"{wrong_use}: say --yes, or --dry-run to see what it would do")
    if lost := standard_streams.find_lost():
        raise lost
    with default_signals():
        standard_streams.write_out(f"{question} [y/N] ")
        answer = sys.stdin.readline()
    if answer.strip().lower() not in ("y", "yes"):
        raise Failure("nothing was changed")


@contextlib.contextmanager
def default_signals() -> Iterator[None]:
    """Let a signal end the command as it ends any other, while somebody is asked."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
