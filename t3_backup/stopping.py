"""How a command is told to stop, and how it lets others go first: signals, the terminal, and the priority."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from t3_backup.errors import Failure, UsageError

_NICE = 10


def let_others_go_first() -> None:
    """The users' servers are on the same processors."""
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))


class Stopping(threading.Event):
    """Set where somebody wants an end, by the signal of `number`."""

    number: int | None = None

    def end(self) -> None:
        """Once all is cleaned up, end as was asked: so that who asked can tell it from a failure."""
        if self.number is not None:
            signal.signal(self.number, signal.SIG_DFL)
            os.kill(os.getpid(), self.number)


def on_signals(told: Callable[[], None] = lambda: None) -> Stopping:
    """An event that SIGTERM, SIGINT and SIGHUP (the terminal has gone) set, which is then `told`.

    What runs is stopped cleanly, what waits is not begun.

    The terminal can't put it to sleep: with the workers asleep a pin would hold a server's -wal, and with the parent asleep
    nobody would end it.
    """
    stopping = Stopping()
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)  # the workers inherit it

    def stop(number: int, _: object) -> None:
        stopping.number = number
        stopping.set()
        told()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) has it
            signal.signal(number, stop)
    return stopping


def must_agree(question: str, wrong_use: str, *, yes: bool, silent: bool) -> None:
    """Ask whoever sits at the terminal, who need not be asked where he said `yes` before.

    Raises UsageError (`wrong_use`) where nobody can be asked, or it is to be `silent`, and Failure where he says no.
    """
    if yes:
        return
    if not sys.stdin.isatty() or silent:
        raise UsageError(f"{wrong_use}: say --yes, or --dry-run to see what it would do")
    with at_once():
        print(f"{question} [y/N] ", end="", flush=True)
        answer = sys.stdin.readline()
    if answer.strip().lower() not in ("y", "yes"):
        raise Failure("nothing was changed")


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """While somebody is asked, and nothing is begun, a signal ends the command as it ends any other."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
