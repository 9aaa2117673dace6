"""Let a command be told to stop, and let others go first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

_NICE = 10
_PAUSE = signal.SIGUSR1


def lower_priority() -> None:
    """Let others go first: the users' servers are on the same processors."""
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def ask_to_pause(pid: int) -> bool:
    """Ask a process to pause; False where there is none, or none that listens."""
    with contextlib.suppress(OSError, ValueError):
        pidfd = os.pidfd_open(pid)
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            caught = int(status.partition("SigCgt:")[2].split(maxsplit=1)[0], 16)
            if caught & 1 << (_PAUSE - 1):  # another one would die of it
                signal.pidfd_send_signal(pidfd, _PAUSE)
                return True
        finally:
            os.close(pidfd)
    return False


def pause_on_signal(pause: threading.Event) -> None:
    """Set `pause` where somebody asks this process to pause (`ask_to_pause`)."""
    signal.signal(_PAUSE, lambda *_: pause.set())


class StopRequest(threading.Event):
    """Set where somebody wants an end, by the signal of `number`."""

    number: int | None = None

    def end(self) -> None:
        """End as was asked, once all is cleaned up: who asked can tell it from a failure."""
        if self.number is not None:
            signal.signal(self.number, signal.SIG_DFL)
            os.kill(os.getpid(), self.number)


def stop_on_signals(told: Callable[[], None] = lambda: None) -> StopRequest:
    """Make an event that SIGTERM, SIGINT and SIGHUP set, and call `told` then.

    What runs is stopped cleanly, what waits is not begun. The terminal can't put it to sleep: with
    the workers asleep a pin would hold a server's -wal, and with the parent asleep nobody would end
    it.
    """
    stopping = StopRequest()
    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)  # the workers inherit it

    def stop(number: int, _: object) -> None:
        stopping.number = number
        stopping.set()
        told()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # as nohup(1) has it
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    return stopping
