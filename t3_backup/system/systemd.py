"""Call systemctl(1) by one set of rules; stop, mask and start services.

On a machine that systemd has not booted, or without such a unit, there is no service.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.system.process import run_in_own_group
from t3_backup.text import quote

T = TypeVar("T")

BOOTED = Path("/run/systemd/system")  # by systemd, where it is there (sd_booted(3))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # where systemd looks for a program, too
_C = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "SYSTEMD_COLORS": "0"}
ENVIRONMENT: Mapping[str, str] = {"PATH": PATH, **_C}
_SYSTEMCTL = "/usr/bin/systemctl"
_STOP_SECONDS = 300  # systemd's own limit (TimeoutStopSec) is the shorter one
_SECONDS = 60
_RUNNING = ("active", "activating", "reloading")
_QUESTIONS = ("show", "cat", "list-units")  # which change nothing
# which lead to the same when they are asked for again, even if the first was heard
_IDEMPOTENT = ("start", "stop", "mask", "unmask", "reset-failed", "daemon-reload")
# How systemctl and systemd-run say that nobody answered them, be it that systemd executes itself
# anew (daemon-reexec), that it is too busy, or that the bus is not there for a moment.
_UNANSWERED = re.compile(
    "Failed to connect to .*bus|D-Bus connection terminated|Connection reset by peer"
    "|Connection refused|Connection timed out|Transport endpoint is not connected"
    "|Message recipient disconnected from message bus|Remote peer disconnected"
    "|Did not receive a reply|Method call timed out"
)
_NOT_BOOTED = "has not been booted with systemd"  # then there is nobody who could
_LONGER_S = (0.5, 1.0, 2.0, 4.0)  # before what takes time itself is begun anew
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # before it is asked again: a reexec takes 0.1 to 2 s


def call_systemctl(*words: str, seconds: float = _SECONDS, check: bool = True) -> str:
    """Call systemctl with these words, and return what it prints.

    What can be asked for again is, within `seconds`, where systemd does not answer. Raises
    SystemdUnanswered where it doesn't then, and Failure where systemctl does not end in time or,
    with `check`, well. It asks nobody for a password, and has no pager, no colours, no language but
    C and no time zone but UTC. A Ctrl-C does not end it.
    """
    said = " ".join(["systemctl", *(word for word in words if not word.startswith("-"))])
    asks = words[0] in _QUESTIONS
    pauses = iter(_PAUSES_S if asks or words[0] in _IDEMPOTENT else ())
    until = time.monotonic() + seconds
    while True:
        try:
            done = _run_systemctl(words, until - time.monotonic())
        except OSError as error:
            raise Failure(f"{said}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            why = f"{said} does not end within {seconds:.0f} s"
            raise (SystemdUnanswered if asks else Failure)(why) from None
        if done.returncode == 0:
            return done.stdout
        unanswered = is_unanswered(done.stderr)
        pause = next(pauses, seconds) if unanswered else seconds
        if time.monotonic() + pause >= until:
            break
        time.sleep(pause)
    if check or (asks and unanswered):
        reason = (done.stderr or done.stdout).strip().splitlines()
        why = f"{said} failed: {reason[0] if reason else f'exit status {done.returncode}'}"
        raise SystemdUnanswered(why) if unanswered else Failure(why)
    return done.stdout


def insist(call: Callable[[], T]) -> T:
    """Call, and again where systemd did not answer; each call begins anew.

    Raises SystemdUnanswered where it never does.
    """
    for pause in _LONGER_S:
        try:
            return call()
        except SystemdUnanswered:
            time.sleep(pause)
    return call()


def is_unanswered(text: str) -> bool:
    """Tell whether systemctl or systemd-run says that nobody has answered it. Pure."""
    return _UNANSWERED.search(text) is not None and _NOT_BOOTED not in text


def _run_systemctl(words: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    line = [_SYSTEMCTL, "--no-ask-password", "--no-pager", *words]
    return run_in_own_group(line, env=ENVIRONMENT, seconds=seconds)


@dataclass(frozen=True)
class Service:
    """The unit of one service."""

    unit: str
    # the exit status of one that was asked to stop, where systemd takes it for a failure
    stopped_status: int | None = None

    def find(self) -> Self | None:
        """Return this service; None where there is no such unit."""
        return None if not BOOTED.is_dir() or self.show("LoadState") == "not-found" else self

    def runs(self) -> bool:
        """Tell whether it runs, is about to, or has crashed.

        One that its database brings down is started with another.
        """
        state = self.show("ActiveState")
        if state == "failed":
            return self.show("ExecMainStatus") != str(self.stopped_status)
        return state in _RUNNING

    def is_masked(self) -> bool:
        """Tell whether an admin keeps it from starting."""
        return self.show("LoadState") == "masked"

    def stop(self, *, mask: bool) -> None:
        """Stop it, and, where asked, let nobody start it until `release`.

        How it ends is its own matter, and it may take its time. Raises Failure where it goes on.
        """
        # before the mask, which hides how it wants to be stopped
        self._call("stop", seconds=_STOP_SECONDS)
        if mask:
            self._call("mask", "--runtime")  # a reboot undoes it
            self._call("stop", seconds=_STOP_SECONDS)  # it may have been started in between
        if (state := self.show("ActiveState")) not in ("inactive", "failed"):
            what = f"{self.unit} does not stop (it is {state})"
            raise Failure(f"{what}: systemctl status {quote(self.unit)}")

    def release(self, *, unmask: bool, start: bool) -> None:
        """Undo `stop`, and start it where asked. Raises Failure."""
        if unmask:
            self._call("unmask", "--runtime")
        if start:
            # It may have died too often lately to be started again otherwise. One that ended well
            # may be forgotten already.
            with contextlib.suppress(Failure):
                self._call("reset-failed")
            self._call("start")

    def show(self, name: str) -> str:
        """Read a property of the unit, as `systemctl show` has it. Raises Failure."""
        return self._call("show", f"--property={name}", "--value").strip()

    def _call(self, verb: str, *options: str, seconds: float = _SECONDS) -> str:
        return call_systemctl(verb, *options, self.unit, seconds=seconds)
