"""A machine with a real systemd as its first process: a fresh overlay over a tree, in namespaces of its own.

It has no network. Everything in it is reached from outside as root would reach it; leaving the
block ends all that runs there and removes all that it left.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support.booted.debian_trees import CACHE, installed_tree, locked, remove_unless_in_use, tree

BOUND_S = 120  # how long anything may take before it counts as hanging
# a program that tells what it may do, run in the place of a service
CONFINEMENT_PROBE = Path(__file__).parent / "confinement_probe.py"
_BOOT = Path(__file__).parent / "boot.sh"
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
}


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on standard output."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Machine:
    """A booted machine of `suite`; `pid` is that of its first process, as the host has it."""

    suite: str
    pid: int
    again: Callable[[], Machine] | None = field(default=None, repr=False, compare=False)

    def lose_power(self) -> Machine:
        """End all that runs in it at once, and boot it again with what is on its disk; this one is no more.

        What the kernel had not written yet is not lost by that.
        """
        assert self.again is not None
        return self.again()

    def command(
        self, *argv: str, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> list[str]:
        """The command line that runs `argv` in the machine, from outside."""
        environ = [f"{name}={value}" for name, value in (_ENVIRONMENT | dict(env or {})).items()]
        become = (
            []
            if user is None
            else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
        )
        enter = [
            "nsenter",
            "-t",
            str(self.pid),
            "-m",
            "-p",
            "-u",
            "-i",
            "-n",
            "-C",
            "--wdns=/",
            "--",
            "env",
            "-i",
            *environ,
        ]
        return [*enter, *become, *argv]

    def run(
        self, *argv: str, user: str | None = None, env: Mapping[str, str] | None = None, check: bool = True,
        stdin: str | bytes = "", timeout: float = 120,
    ) -> Result:  # fmt: skip
        """Run a command to its end. With `check`, what it printed is the message of the failure."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            self.command(*argv, user=user, env=env),
            input=data,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        result = Result(
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        assert not check or result.code == 0, (
            f"{' '.join(argv)}: exit {result.code}\n{result.out[-4000:]}{result.err[-4000:]}"
        )
        return result

    def sh(self, script: str, *words: str, **how: Any) -> Result:
        """Run a shell's script to its end; any command that fails in it is its end."""
        return self.run("bash", "-euo", "pipefail", "-c", script, "bash", *words, **how)

    def start(
        self, *argv: str, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command and leave it running; it ends with the machine. Standard input and output
        are pipes."""
        line = self.command(*argv, user=user, env=env)
        return subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def write(
        self, path: str, data: str | bytes, mode: int = 0o644, owner: str = "root:root"
    ) -> None:
        """Make or replace a file; its folder is made where it is not there."""
        self.sh(
            'mkdir -p "${1%/*}"; cat >"$1"; chown "$2" "$1"; chmod "$3" "$1"',
            path,
            owner,
            f"{mode:o}",
            stdin=data,
        )

    def read(self, path: str) -> str:
        """The text of a file."""
        return self.run("cat", path).out

    def copy_in(self, source: Path, path: str, mode: int = 0o644, owner: str = "root:root") -> None:
        """Copy a file of the host."""
        self.write(path, source.read_bytes(), mode, owner)

    def copy_tree(self, source: Path, path: str, user: str) -> None:
        """Copy a folder of the host, to be a user's; the folder above it must be there."""
        data = subprocess.run(
            ["tar", "-C", str(source), "-cf", "-", "."], capture_output=True, check=True
        ).stdout
        script = 'mkdir -p "$1"; tar -C "$1" -xf - --no-same-owner; chown -R "$2:" "$1"'
        self.sh(script, path, user, stdin=data)

    def add_user(self, name: str, mode: int = 0o700) -> None:
        """A user who can log in, with a home of `mode`."""
        self.run("useradd", "--create-home", "--user-group", "--shell=/bin/bash", name)
        self.run("chmod", f"{mode:o}", f"/home/{name}")

    def pids(self, user: str, pattern: str) -> list[str]:
        """The processes of a user whose command line has `pattern`."""
        return self.run("pgrep", "-u", user, "-f", pattern, check=False).out.split()

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        out = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names)).out
        return dict(line.split("=", 1) for line in out.splitlines())

    def start_unit(self, unit: str) -> None:
        """Start a unit and wait for it; what the journal has of it is the message of the
        failure."""
        if self.run("systemctl", "start", unit, check=False).code != 0:
            raise AssertionError(
                "\n".join(str(entry["MESSAGE"]) for entry in self.journal(unit=unit)[-20:])
            )

    def failed(self) -> list[str]:
        """The units that have failed."""
        lines = self.run(
            "systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--full"
        ).lines
        return [line.split()[0] for line in lines]

    def journal(self, *match: str, unit: str | None = None) -> list[dict[str, Any]]:
        """The entries of the journal that match (FIELD=value), oldest first."""
        self.run("journalctl", "--sync")
        chosen = [*([] if unit is None else [f"--unit={unit}"]), *match]
        out = self.run(
            "journalctl", "--output=json", "--all", "--no-pager", *chosen, check=False
        ).out
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def until(self, condition: Callable[[], Any], what: str, seconds: float = BOUND_S) -> Any:
        """What `condition` gives as soon as it gives something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.03)
        raise AssertionError(f"no {what} in {seconds} s")


@contextmanager
def boot(
    suite: str, *options: str, prepared: bool = False, packages: Sequence[Path] = ()
) -> Iterator[Machine]:
    """Boot a fresh machine of `suite`; `prepared` has all that the package needs, so that it alone is left to install;
    with `packages` they are installed, and this is the first boot after it.

    Further options are systemd-nspawn's, such as `--bind-ro=/some/folder:/mnt`.
    """
    with (
        installed_tree(suite, packages) if packages else tree(suite, prepared=prepared) as below,
        _folder() as (folder, held),
    ):
        alone = ["unshare", "--mount", "--propagation=private"]
        command = [
            *alone,
            "bash",
            str(_BOOT),
            str(below),
            str(folder),
            f"t3-{folder.name}",
            *options,
        ]
        pipe = subprocess.PIPE
        # Not in our session: a Ctrl-C is ours to hear, and the end of its input tells it.
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, start_new_session=True, pass_fds=[held]
        ) as keeper:
            assert keeper.stdin is not None
            assert keeper.stdout is not None
            boots = (keeper.stdin, keeper.stdout)

            def again() -> Machine:
                boots[0].write("again\n")
                boots[0].flush()
                found = _booted(
                    suite,
                    int(boots[1].readline() or 0),
                    folder,
                    ("running", "degraded"),
                    5 * BOUND_S,
                )
                return replace(found, again=again)

            try:
                container = int(keeper.stdout.readline() or 0)
                yield replace(_booted(suite, container, folder), again=again)
            finally:
                keeper.stdin.close()
                keeper.wait(BOUND_S)


def install_package(machine: Machine, deb: Path, *options: str, stdin: str = "") -> str:
    """Install the package as its documentation says; what apt said."""
    machine.copy_in(deb, f"/root/{deb.name}")
    return machine.run(
        "apt", "install", "--yes", *options, f"/root/{deb.name}", stdin=stdin
    ).text.replace("\r\n", "\n")  # dpkg has a terminal


@contextmanager
def _folder() -> Iterator[tuple[Path, int]]:
    """A new folder and the descriptor by which it is held; those of keepers that were killed are
    removed."""
    with locked(CACHE / "machines.lock"):
        for other in CACHE.glob("machine-*"):
            remove_unless_in_use(other)
        # a machine's name, too, as systemd-nspawn wants them
        folder = CACHE / f"machine-{secrets.token_hex(6)}"
        folder.mkdir(mode=0o700)
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder, held
    finally:
        os.close(held)


def _booted(
    suite: str, container: int, folder: Path, states: Sequence[str] = ("running",), seconds: float = BOUND_S
) -> Machine:  # fmt: skip
    """Wait until its first process says that all is up. Raises RuntimeError with what it
    printed."""
    end = time.monotonic() + seconds
    state = "no first process"
    while time.monotonic() < end and Path(f"/proc/{container}").exists():
        for pid in _children(container):
            found = Machine(suite, pid)
            state = found.run("systemctl", "is-system-running", "--wait", check=False).out.strip()
            if state in states:
                return found
        time.sleep(0.02)
    console = (
        (folder / "console").read_text(errors="replace") if (folder / "console").exists() else ""
    )
    raise RuntimeError(f"{suite} does not boot ({state}):\n{console[-3000:]}")


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
