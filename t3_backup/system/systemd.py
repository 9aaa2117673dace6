"""Call systemctl(1) by one set of rules; stop, mask and start services.

On a machine that systemd has not booted, or without such a unit, there is no service.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from t3_backup.errors import Failure
from t3_backup.system.process import run_in_own_group

BOOTED = Path("/run/systemd/system")  # by systemd, where it is there (sd_booted(3))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # where systemd looks for a program, too
_C = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "SYSTEMD_COLORS": "0"}
ENVIRONMENT: Mapping[str, str] = {"PATH": PATH, **_C}
_SYSTEMCTL = "/usr/bin/systemctl"
_STOP_SECONDS = 300  # systemd's own limit (TimeoutStopSec) is the shorter one
_SECONDS = 60
_RUNNING = ("active", "activating", "reloading")


def call_systemctl(*words: str, seconds: float = _SECONDS, check: bool = True) -> str:
    """Call systemctl with these words, and return what it prints.

    Raises Failure where it does not end in time or, with `check`, well. It asks nobody for a
    password, and has no pager, no colours, no language but C and no time zone but UTC. A Ctrl-C
    does not end it.
    """
    said = " ".join(["systemctl", *(word for word in words if not word.startswith("-"))])
    try:
        done = run_in_own_group(
            [_SYSTEMCTL, "--no-ask-password", "--no-pager", *words],
            env=ENVIRONMENT,
            seconds=seconds,
        )
    except OSError as error:
        raise Failure(f"{said}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{said} does not end within {seconds:.0f} s") from None
    if check and done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise Failure(f"{said} failed: {reason[0] if reason else f'exit status {done.returncode}'}")
    return done.stdout


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
            raise Failure(f"{what}: systemctl status {self.unit}")

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
