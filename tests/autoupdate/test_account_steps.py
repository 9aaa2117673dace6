"""The steps of one account: the data of before a bump, put back by the command, and whose fault it
is where a login fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_t3.served import free_port
from support.host import Host
from support.users import needs_root

from demo.users import User
from t3_backup.accounts import Account
from t3_backup.autoupdate import settings, snapshots
from t3_backup.autoupdate.account_steps import LiveSteps
from t3_backup.autoupdate.faults import AccountFault
from t3_backup.autoupdate.programs.installations import Installations
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.t3 import servers
from t3_backup.t3.servers import Activity, Server

pytestmark = needs_root

_WRITE_V2 = """
import os, sqlite3
c = sqlite3.connect("statev2.sqlite")
c.execute("PRAGMA journal_mode=wal")
c.execute("CREATE TABLE t (x)")
c.execute("INSERT INTO t VALUES (1)")
c.commit()
os._exit(0)
"""
_READ_V2 = "import sqlite3; print(*sqlite3.connect('statev2.sqlite').execute('SELECT x FROM t'))"
_CHANGE = "import sqlite3; sqlite3.connect('state.sqlite').execute('CREATE TABLE new (x)')"
_LISTEN = """
import socket, sys
s = socket.socket()
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
print("there", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def told() -> list[str]:
    """What the steps warn of."""
    return []


@pytest.fixture
def steps(
    host: Host,
    make_user: Callable[..., User],
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
) -> LiveSteps:
    """Those of somebody with data; the command is that of this checkout."""
    user = make_user("back-ann", small)
    host.write_map(user)
    monkeypatch.setattr(snapshots, "COMMAND", (sys.executable, "-m", "t3_backup.cli.main"))
    for name, value in host.env().items():
        monkeypatch.setenv(name, value)
    knobs = settings.load({}, host.folder / "no-defaults")
    server = servers.find_server(user.name, knobs.serve, lambda _: None)
    return LiveSteps(
        server, Installations(host.folder / "root"), Snapshots(host.store), knobs, told.append
    )


def folder_of(steps: LiveSteps) -> Path:
    return steps.server.account.home / ".t3" / "userdata"


def as_owner(steps: LiveSteps, *line: str) -> str:
    """What a command of the owner's prints, in the folder of the databases."""
    account = steps.server.account
    return subprocess.run(
        line,
        check=True,
        user=account.uid,
        group=account.gid,
        cwd=folder_of(steps),
        capture_output=True,
        text=True,
    ).stdout


def test_what_no_snapshot_gives_back_lies_aside_and_is_told(
    steps: LiveSteps, told: list[str]
) -> None:
    """Row 38, of a rollback, and of the way back from a version that failed."""
    attachments, user = folder_of(steps) / "attachments", steps.server.user
    as_owner(steps, "mkdir", "attachments")
    as_owner(steps, "cp", "/etc/hostname", "attachments/a.png")
    name = steps.keep_snapshot("prebump-0.0.25", proven=True)
    (attachments / "link.png").symlink_to("a.png")
    steps.restore_snapshot(name, kept=None)
    [aside] = folder_of(steps).glob("*.replaced-*")
    assert (aside / "old/attachments/link.png").is_symlink()
    kept = f"the part of the old state that no snapshot holds was kept at {aside}/old"
    assert told[-1] == f"{user}: {kept}"
    assert f"{user}: not packed: attachments/link.png: it belongs to uid 0" in told
    assert not (attachments / "link.png").is_symlink()


def test_going_back_to_v1_puts_v2_aside_and_keeps_it(steps: LiveSteps, told: list[str]) -> None:
    """With its -wal and -shm: else the next bump would go on with it, and the work on V1 since
    would be missing. The snapshot that holds it is named, and an undo brings it back."""
    folder, user = folder_of(steps), steps.server.user
    then = steps.keep_snapshot("prebump-0.1.0", proven=True)
    as_owner(steps, "cp", "state.sqlite", "statev2.sqlite")
    as_owner(steps, sys.executable, "-c", _WRITE_V2)
    made = {f"statev2.sqlite{ending}" for ending in ("", "-wal", "-shm")}
    assert made <= {path.name for path in folder.iterdir()}
    left = steps.keep_snapshot("prerollback-0.0.42", proven=True)
    steps.restore_snapshot(then, kept=left)
    assert {path.name for path in folder.iterdir()} == {"state.sqlite"}
    said = f"{user}: statev2.sqlite: not in {then}, so put aside, and kept in "
    [line] = [line for line in told if line.startswith(said)]
    known = {one.name: one for one in steps.snapshots.list_snapshots(user)}
    holds = {one.file for one in known[line.removeprefix(said)].databases}
    assert holds == {"state.sqlite", "statev2.sqlite"}
    steps.restore_snapshot(left, kept=None)
    assert as_owner(steps, sys.executable, "-c", _READ_V2) == "(1,)\n"


def test_a_rollback_takes_one_snapshot_of_what_it_leaves(steps: LiveSteps, told: list[str]) -> None:
    """Its own and that of the restore would be the same."""
    then = steps.keep_snapshot("prebump-0.0.25", proven=True)
    as_owner(steps, sys.executable, "-c", _CHANGE)
    left = steps.keep_snapshot("prerollback-0.0.24", proven=True)
    steps.restore_snapshot(then, kept=left)
    known = steps.snapshots.list_snapshots(steps.server.user)
    assert [one.name for one in known] == [left, then]
    assert told == []


class FailingServer:
    """One that does not answer; what else is the matter is up to a test."""

    user = "ann"
    account = Account("ann", 54321, 54321, (), Path("/home/ann"))
    settings = Path("/etc/t3-serve/ann.env")

    def __init__(self, error: Failure, *, free_bytes: int = 1 << 40) -> None:
        self.error = error
        self.free_bytes = free_bytes
        self.port = free_port()

    def await_answer(self, patience: float) -> None:
        raise self.error

    def read_activity(self) -> Activity:
        return Activity(30, 0, free_bytes=self.free_bytes)


def failure_of(server: FailingServer) -> Failure:
    """What the login check of such a server ends with."""
    nowhere = Path("/nonexistent")
    knobs = settings.load({}, nowhere)
    one: Server = server  # type: ignore[assignment]
    steps = LiveSteps(one, Installations(nowhere), Snapshots(nowhere), knobs, lambda _: None)
    with pytest.raises(Failure) as caught:
        steps.check_login()
    return caught.value


ENDED = Failure("ann: t3-serve@ann.service ended right after its start")


def test_a_full_home_is_the_accounts_own_fault_and_another_failure_is_the_versions() -> None:
    full = failure_of(FailingServer(ENDED, free_bytes=1 << 20))
    assert isinstance(full, AccountFault)
    assert str(full) == (
        "/home/ann: 1 MiB are free there: make room "
        "(t3-serve@ann.service ended right after its start)"
    )
    assert failure_of(FailingServer(ENDED)) is ENDED


def test_a_port_that_another_user_has_taken_is_the_accounts_own_fault(
    make_user: Callable[..., User],
) -> None:
    server, mallory = FailingServer(ENDED), make_user("blm-mallory")
    line, pipe = [sys.executable, "-c", _LISTEN, str(server.port)], subprocess.PIPE
    with subprocess.Popen(line, user=mallory.uid, stdin=pipe, stdout=pipe) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"there\n"
        taken = failure_of(server)
        taker.kill()
    assert isinstance(taken, AccountFault)
    assert f"port {server.port} is taken by {mallory.name} (uid {mallory.uid}), " in str(taken)


def test_systemd_that_does_not_answer_is_no_fault_of_account_or_version() -> None:
    unanswered = SystemdUnanswered("systemctl show failed: Connection reset by peer")
    assert failure_of(FailingServer(unanswered, free_bytes=0)) is unanswered
