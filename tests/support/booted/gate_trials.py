"""A machine on which versions of T3 are tried by the gate, and on which there is something to be
got at."""

from __future__ import annotations

import io
import json
import shlex
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_t3

from support import programs
from support.booted.machine import Machine, boot
from support.booted.t3_servers import LIMITS, TIMERS
from support.booted.users import STORE, add_user

USERS = ("alice", "bob")
VERSIONS = "/var/lib/t3-autoupdate/versions"
SECRET = "that-nobody-else-has"  # in all that is a secret of alice's
PRIVATE = {"ANTHROPIC_API_KEY": SECRET, "OPENAI_API_KEY": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET}
_TRIALS = programs.booted_line("try_trials.py", "2", STORE, *LIMITS)
# What a hostile version tries besides.
TARGETS = (
    "read /tmp/t3-test",
    "read /var/tmp/t3-test",
    "write /",
    "parent fd/1",
    "parent mem",
    "namespace user",
    "unix /run/dbus/system_bus_socket",
)


@contextmanager
def gate_machine(
    suite: str, debs: Sequence[Path], source: Path, *options: str
) -> Iterator[Machine]:
    """Two users with real data, of which there are snapshots, and with secrets."""
    with boot(suite, *options, packages=debs) as machine:
        # a command that begins ends what another has left in the gate
        machine.run("systemctl", "disable", "--now", *TIMERS)
        for user in USERS:
            add_user(machine, user, source)
            # Open to all, so that it is the sandbox that keeps them closed, and nothing else.
            for path in (
                ".t3/userdata/secrets/server-signing-key.bin",
                ".claude/.credentials.json",
                ".ssh/id_ed25519",
                ".t3/worktrees/work/file",
            ):
                machine.write(f"/home/{user}/{path}", SECRET)
            machine.sh('chown -R "$1:" "/home/$1"; chmod -R a+rX "/home/$1"', user)
            machine.write(f"/etc/t3-serve/{user}.env", f"T3_SECRET={SECRET}\n")
        for path in ("/var/lib/t3-autoupdate/journal.json", "/tmp/t3-test", "/var/tmp/t3-test"):
            machine.write(path, SECRET)
        machine.run("t3-backup-state", "run")
        yield machine


@contextmanager
def open_sockets(machine: Machine) -> Iterator[None]:
    """With sockets of every kind that all may connect to."""
    with machine.start(*programs.booted_line("listen.py")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert (said := process.stdout.readline()) == "listens\n", said + process.stdout.read()
        yield
        process.stdin.close()
        assert process.wait(10) == 0


def install_version(machine: Machine, version: str, variant: str = "good") -> str:
    """Install it as npm does; its prefix."""
    prefix = f"{VERSIONS}/{version}-{variant}"
    data = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        fake_t3.unpack(Path(folder), version, variant, targets=TARGETS)
        with tarfile.open(fileobj=data, mode="w") as archive:
            for part in ("bin", "lib"):
                archive.add(Path(folder, part), part)
    machine.sh(
        'mkdir -p "$1"; tar -xf - -C "$1" --no-same-owner; chmod -R a+rX "$1"',
        prefix,
        stdin=data.getvalue(),
    )
    return prefix


def install_by_npm(machine: Machine, folder: Path) -> dict[str, Any]:
    """Install a version by npm whose install script tries what it can reach; what it wrote."""
    # Its parent is npm, which is no more than it is, and has nothing to tell.
    tried = [one for one in TARGETS if not one.startswith("parent ")]
    script = shlex.join(["/usr/bin/python3", "install.py", *tried])
    archive = fake_t3.tarball(
        folder,
        "0.0.25",
        scripts={"postinstall": script},
        beside={"install.py": programs.text("install_script.py").encode()},
    )
    machine.copy_in(archive, "/srv/t3-0.0.25.tgz")
    machine.copy_in(fake_t3.HERE / "npm", "/usr/local/bin/npm", 0o755)
    machine.run(*programs.booted_line("fetch_version.py", "0.0.25", "/srv/t3-0.0.25.tgz"))
    prefix = f"{VERSIONS}/0.0.25"
    found: dict[str, Any] = json.loads(machine.read(f"{prefix}/lib/node_modules/t3/reached.json"))
    machine.run("rm", "-r", prefix, f"{prefix}.json")
    return found


def run_trials(
    machine: Machine, wanted: Sequence[tuple[str, str]], env: dict[str, str] | None = None
) -> list[dict[str, Any] | None]:
    """Try each prefix on its subject, one after another; None where there is no snapshot."""
    lines = "".join(f"{prefix} {subject}\n" for prefix, subject in wanted)
    answer = machine.run(*_TRIALS, stdin=lines, env=env, timeout=900)
    return [json.loads(line) for line in answer.lines[1:]]


def run_gate(machine: Machine, prefix: str, *users: str) -> list[dict[str, Any]]:
    """The whole gate."""
    found: list[dict[str, Any]] = json.loads(
        machine.run(*programs.booted_line("try_version.py", STORE, prefix, *users)).out
    )
    return found


@contextmanager
def hanging_trial(
    machine: Machine, prefix: str, subject: str, name: str, env: dict[str, str] | None = None
) -> Iterator[Callable[[], None]]:
    """While a trial of a server that hangs is under way; call what it gives to kill whoever started
    it."""
    with machine.start(*_TRIALS, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        process.stdin.write(f"{prefix} {subject}\n")
        process.stdin.flush()
        machine.until(
            lambda: machine.run("pgrep", "-f", f"serve .*{name}", check=False).out,
            "server in the gate",
        )

        def kill() -> None:
            machine.run("kill", "-9", pid, check=False)
            process.wait(10)

        try:
            yield kill
        finally:
            kill()
            remove_leftovers(machine)


def remove_leftovers(machine: Machine) -> None:
    """As every command does first."""
    machine.run(
        "python3", "-c", "from t3_backup.autoupdate.gate import sandbox; sandbox.remove_leftovers()"
    )


def find_leftovers(machine: Machine) -> list[str]:
    """Units and folders of the gate's that are there."""
    units = machine.run(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "t3-gate-*"
    ).lines
    folders = machine.run("find", "/var/lib", "-maxdepth", "2", "-name", "t3-gate-*").lines
    return [line.split()[0] for line in units] + folders
