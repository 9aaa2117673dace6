"""Users of a machine with real T3 databases, and their servers, which write all the time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo import server as program
from support import programs
from support.booted.machine import BOUND_S, Machine

MAP = "/etc/ttyd-user-map"
STORE = "/var/backups/t3-state"
SERVICE = "t3-backup-state.service"
TIMER = "t3-backup-state.timer"
PROOF_SERVICE = "t3-backup-verify.service"
PROOF_TIMER = "t3-backup-verify.timer"
# As T3's own: SIGTERM is answered with exit code 130, after up to 20 s where a browser is
# connected.
_UNIT = """
[Unit]
Description=A T3 server of %i
[Service]
User=%i
ExecStart=/usr/bin/python3 /opt/serve.py /home/%i/.t3/userdata/state.sqlite
Restart=on-failure
SuccessExitStatus=
[Install]
WantedBy=multi-user.target
"""


def database_path(user: str) -> str:
    """Where T3 has a user's."""
    return f"/home/{user}/.t3/userdata/state.sqlite"


def add_user(machine: Machine, user: str, source: Path | None = None, mode: int = 0o700) -> None:
    """A user with a home of `mode`, a line in the map, and a copy of the database `source` as their
    own."""
    machine.add_user(user, mode)
    machine.sh('echo "$1@example=$1" >>"$2"', user, MAP)
    machine.run("mkdir", "-p", f"/home/{user}/.t3/userdata", user=user)
    if source is not None:
        machine.copy_in(source, database_path(user), 0o644, f"{user}:{user}")


def server_unit(user: str) -> str:
    """The unit of a user's server."""
    return f"t3-serve@{user}.service"


def install_server_units(machine: Machine) -> None:
    """Let each user's server be a unit; how many seconds it takes to stop is in /run/linger."""
    machine.write("/opt/t3", Path(program.__file__).read_bytes())
    machine.write("/opt/serve.py", programs.text("serve.py"))
    machine.write("/run/linger", "0")
    machine.write("/etc/systemd/system/t3-serve@.service", _UNIT)
    machine.run("systemctl", "daemon-reload")


def count_events(machine: Machine, user: str) -> int:
    """How many events are in the live database of a user."""
    query = "SELECT count(*) FROM orchestration_events"
    line = programs.booted_line("print_query.py", database_path(user), query)
    return int(machine.run(*line, user=user).out)


def list_snapshots(machine: Machine) -> dict[str, list[dict[str, Any]]]:
    """The snapshots of each account, newest first."""
    accounts = machine.run("t3-backup-state", "list", "--json").document["accounts"]
    return {account["user"]: account["snapshots"] for account in accounts}


def is_idle(machine: Machine, unit: str = SERVICE) -> bool:
    """Whether the service is not at work, nor about to be tried again."""
    return machine.show(unit, "ActiveState")["ActiveState"] in ("inactive", "failed")


@contextmanager
def paused_worker(
    machine: Machine, user: str, unit: str = SERVICE, operation: str = ""
) -> Iterator[int]:
    """Start a service and stop (SIGSTOP) its worker for `user`; the service's pid.

    That is the worker that copies the database, or proves a snapshot of it. At the end it goes on.
    One that copies is ended after some seconds of silence, since it holds the source.
    """
    operation = operation or ("copy_databases" if unit == SERVICE else "check_integrity")
    with machine.start(*programs.booted_line("stop_worker.py", user, operation)) as watching:
        try:
            assert watching.stdout is not None
            assert watching.stdout.readline() == "watching\n"
            machine.run("systemctl", "start", "--no-block", unit)
            workers = watching.communicate(timeout=BOUND_S)[0].split()
        finally:
            watching.kill()
    try:
        yield int(machine.show(unit, "MainPID")["MainPID"])
    finally:
        machine.run("kill", "-CONT", *workers, check=False)


class Server:
    """A running server of a user's."""

    def __init__(self, machine: Machine, process: subprocess.Popen[str]) -> None:
        self._machine = machine
        self._process = process
        self.pid = int(self._answer()["started"])  # in the machine; its first commit is durable

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def mark(self) -> int:
        """How many commits succeeded since the last time; none may have failed."""
        assert self._process.stdin is not None
        self._process.stdin.write("mark since\n")
        self._process.stdin.flush()
        window = self._answer()
        assert window["errors"] == 0, window
        return int(window["commits"])

    def stop(self) -> None:
        """Let it close its database and end; no commit may have failed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        statistics = self._answer()
        assert statistics["errors"] == 0, statistics
        assert self._process.wait(BOUND_S) == 0

    def kill(self) -> None:
        """SIGKILL: the -wal and the -shm stay as they are."""
        self._machine.run("kill", "-9", str(self.pid))
        self._process.wait(BOUND_S)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("{"), line + self._process.stdout.read()
        return json.loads(line)


@contextmanager
def running_server(machine: Machine, user: str, interval_s: float = 0.01) -> Iterator[Server]:
    """Start a server on the user's database, as that user; it is stopped at the end, if it still
    runs."""
    text = Path(program.__file__).read_text(encoding="utf-8")
    line = ["python3", "-I", "-c", text, database_path(user), f"--interval={interval_s}"]
    with machine.start(*line, user=user) as process:
        try:
            running = Server(machine, process)
            yield running
            if running.runs:
                running.stop()
        finally:
            process.kill()


def commit_row(machine: Machine, user: str) -> None:
    """Commit something, as the user: the next snapshot is another one then."""
    table, row = (
        "CREATE TABLE IF NOT EXISTS work (x)",
        "INSERT INTO work VALUES (hex(randomblob(50)))",
    )
    line = programs.booted_line("run_sql.py", "close", database_path(user), table, row)
    machine.run("runuser", "-u", user, "--", *line)


ALICE_UNIT = server_unit("alice")


def server_state(machine: Machine) -> dict[str, str]:
    return machine.show(ALICE_UNIT, "ActiveState", "LoadState", "MainPID", "NRestarts")
