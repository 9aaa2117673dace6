"""The command under the sandbox of the shipped unit: `systemd-run` with each setting of `t3-backup-state.service`.

For a booted system in which the package is installed (T3_TEST_SANDBOX=1). The tests themselves stay
outside: they make users, servers and trouble; what they call is confined as the timer's run is.
"""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

UNIT = "t3-backup-state.service"
ACTIVE = os.environ.get("T3_TEST_SANDBOX") == "1"
STORE = Path("/var/backups/t3-state")  # what the unit may write; the stores of the tests lie in it
# What belongs to the run by the timer, and not to its confinement.
_NOT_CONFINING = {
    "Type",
    "ExecStart",
    "Restart",
    "RestartSec",
    "RestartPreventExitStatus",
    "SuccessExitStatus",
    "TimeoutStartSec",
}

_numbers = itertools.count(1)


def systemctl(*words: str) -> str:
    """What systemctl says."""
    done = subprocess.run(
        ["systemctl", *words], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip()


def settings(text: str) -> Iterator[str]:
    """The lines of a unit's [Service] section that confine it."""
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line
        elif (
            section == "[Service]"
            and line
            and line[0] not in "#;"
            and line.partition("=")[0] not in _NOT_CONFINING
        ):
            yield line


@functools.cache
def _properties() -> tuple[str, ...]:
    found = tuple(settings(Path(systemctl("show", "-P", "FragmentPath", UNIT)).read_text()))
    assert any(line.startswith("CapabilityBoundingSet=") for line in found), (
        "the shipped unit has no sandbox"
    )
    return found


def command(name: str, environ: Mapping[str, str], *words: str) -> list[str]:
    """The command line that runs `words` as a unit called `name` under the shipped sandbox."""
    properties = [f"--property={line}" for line in _properties()]
    variables = [f"--setenv={key}={value}" for key, value in environ.items()]
    return [
        "systemd-run",
        "--pipe",
        "--wait",
        "--quiet",
        "--collect",
        f"--unit={name}",
        *properties,
        *variables,
        "--",
        *words,
    ]


def new_name() -> str:
    """A name for a unit that has none yet; how many there were is what `count` tells."""
    return f"t3-test-{os.getpid()}-{next(_numbers)}"


def count() -> int:
    """How many commands were begun under the sandbox."""
    return next(_numbers) - 1


class Process:
    """A command under the sandbox, left running; as a Popen, but that `pid` and signals are those
    of the command itself."""

    def __init__(self, environ: Mapping[str, str], words: Sequence[str], **streams: Any) -> None:
        self._unit = f"{new_name()}.service"
        line = command(self._unit, environ, *words)
        self._popen = subprocess.Popen(line, stdin=subprocess.DEVNULL, text=True, **streams)
        self.pid = self._main_pid()

    def _main_pid(self) -> int:
        end = time.monotonic() + 20
        while time.monotonic() < end and self._popen.poll() is None:
            if (pid := int(systemctl("show", "-P", "MainPID", self._unit) or 0)) > 0:
                return pid
            time.sleep(0.01)
        return self._popen.pid  # it has ended already

    def send_signal(self, number: int) -> None:
        systemctl("kill", "--kill-whom=main", f"--signal={int(number)}", self._unit)

    def kill(self) -> None:
        systemctl("kill", "--signal=SIGKILL", self._unit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._popen, name)

    def __enter__(self) -> Self:
        self._popen.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._popen.__exit__(*error)


if __name__ == "__main__":
    line = command(
        new_name(), {"TMPDIR": str(STORE), "PYTHONDONTWRITEBYTECODE": "1"}, *sys.argv[1:]
    )
    os.execvp(line[0], line)
