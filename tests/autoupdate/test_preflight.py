"""What is looked at before anybody is stopped: where each server listens, whether each database is
there, and whether there is room."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_t3.served import free_port
from support.manifests import make_manifest
from support.users import needs_root

from demo.users import User
from t3_backup.accounts import Account
from t3_backup.autoupdate import (
    freeze,
    journal,
    journal_runner,
    preflight,
    rollback,
    snapshots,
    upgrade,
)
from t3_backup.autoupdate.candidates import Candidates
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.forecast import forecast_move
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.programs import adopt, npm
from t3_backup.autoupdate.programs.installations import Installations
from t3_backup.autoupdate.rollback_plan import Plan
from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.store.manifest import Manifest
from t3_backup.t3.databases import SUCCESSOR, DatabaseState
from t3_backup.t3.servers import Activity, Server

LIVE = "state.sqlite"
OLD, NEW = "0.0.24", "0.0.25"


class Reached(Exception):
    """All was well until then."""


class FakeServers:
    """Accounts whose servers run, as far as is said otherwise."""

    def __init__(self, machine: Context, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.warned: list[str] = []
        self.machine = replace(machine, warn=self.warned.append)
        self.ports: dict[str, int | None] = {"alice": 3773, "bob": 3774}
        self.uids = {"alice": 54321, "bob": 54322}
        self.unread: dict[str, str] = {}  # why
        self.stopped: set[str] = set()
        self.missing: set[str] = set()
        self.bytes: dict[str, int] = {}  # of a database, where it is no small one
        self.free = {"alice": 1 << 40, "bob": 1 << 40}
        self.account_dirs: dict[str, list[Manifest]] = {"alice": [], "bob": []}
        self.folder = folder
        self.tried: list[str] = []
        patch.setattr(adopt, "adopt_accounts", lambda *_: OLD)
        patch.setattr(Context, "servers", lambda _: [self.server(user) for user in self.ports])
        patch.setattr(Server, "runs", lambda one: one.user not in self.stopped)
        patch.setattr(
            snapshots.Snapshots, "list_snapshots", lambda _, user: self.account_dirs[user]
        )
        patch.setattr(npm, "fetch_version", lambda *_: None)

        def run_gate(machine: Context, found: Candidates) -> None:
            self.tried = [one.user for one in found.accounts]
            raise Reached

        patch.setattr(upgrade, "run_gate", run_gate)

    @property
    def everybody(self) -> list[Server]:
        return [self.server(user) for user in self.ports]

    def server(self, user: str) -> Server:
        return Server(
            Account(user, self.uids[user], 1000, (1000,), self.folder),
            None,
            self.ports[user],
            self.folder / f"{user}.env",
            self.look,
        )

    def look(self, one: Account) -> Activity | None:
        if one.user in self.unread:
            raise Failure(self.unread[one.user])
        if one.user in self.missing:
            return None
        database = DatabaseState("state.sqlite", self.bytes.get(one.user, 1), held=False)
        return Activity(30, 0, databases=(database,), free_bytes=self.free[one.user])

    def bump(self) -> list[str]:
        """Who is tried, once all else was looked at."""
        with pytest.raises(Reached):
            upgrade.bump_accounts(self.machine, NEW, asked=True)
        return self.tried


@pytest.fixture
def servers(machine: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeServers:
    return FakeServers(machine, monkeypatch, tmp_path)


def snapshot(size: int = 1) -> Manifest:
    return make_manifest(bytes=size)


def test_where_all_is_well_everybody_is_tried(servers: FakeServers) -> None:
    assert servers.bump() == ["alice", "bob"]
    assert servers.warned == []


def test_a_server_that_nothing_says_the_port_of_is_not_stopped(servers: FakeServers) -> None:
    """The login after the switch could not be tried, nor that after the way back: it would have
    been down in vain."""
    servers.ports["bob"] = None
    assert servers.bump() == ["alice"]
    [told] = servers.warned
    assert re.match(r"bob: left out: a server runs, and no T3_PORT in .*/bob\.env", told)
    assert servers.machine.left_out == {"bob"}
    assert "no T3_PORT in" in (servers.machine.why_frozen("bob") or "")
    assert servers.machine.why_frozen("alice") is None
    freeze.thaw(freeze.account_file(servers.machine.settings.root, "bob"))
    servers.stopped.add("bob")
    assert servers.bump() == ["alice", "bob"]


def test_nor_is_it_by_a_rollback(servers: FakeServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be put back, and back again, and end as neither."""
    monkeypatch.setattr(Context, "server", lambda _, user: servers.server(user))
    monkeypatch.setattr(journal_runner, "run_move", lambda *_: pytest.fail("something was begun"))
    servers.ports["bob"] = None
    plan = Plan(Move("bob", NEW, OLD, f"prerollback-{OLD}"), ())
    with pytest.raises(Failure, match=r"bob: a server runs, and no T3_PORT in .*/bob\.env"):
        rollback.execute_plans(
            servers.machine, [plan], "rollback", lambda: pytest.fail("somebody was asked")
        )
    assert servers.machine.journals.load() is None


def test_two_accounts_of_one_port_are_told_before_one_is_stopped(servers: FakeServers) -> None:
    servers.ports["bob"] = servers.ports["alice"] = free_port()
    with pytest.raises(
        Failure, match=r"bob: T3_PORT in .*/bob\.env is [0-9]+, which is that of alice"
    ):
        upgrade.bump_accounts(servers.machine, NEW, asked=True)
    assert servers.machine.why_frozen("bob") is None, "what befalls everybody is nobody's fault"


def test_who_listens_keeps_their_port_and_who_has_the_same_is_left_out(
    servers: FakeServers,
) -> None:
    """By the kernel, and not by which comes first: alice's server is there."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        servers.ports["bob"] = servers.ports["alice"] = server.getsockname()[1]
        servers.uids["alice"] = os.geteuid()
        assert servers.bump() == ["alice"]
    assert "which is that of alice" in servers.warned[0]


@needs_root
def test_who_has_taken_a_port_is_named(
    servers: FakeServers, make_user: Callable[..., User]
) -> None:
    mallory, port = make_user("prt-mallory"), free_port()
    servers.ports["bob"] = port
    script = (
        f"import socket; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen();"
        "print('there', flush=True); input()"
    )
    pipe = subprocess.PIPE
    line = [sys.executable, "-c", script]
    with subprocess.Popen(line, user=mallory.uid, stdin=pipe, stdout=pipe) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == b"there\n"
        assert servers.bump() == ["alice"]
        taker.kill()
    [told] = servers.warned
    who = rf"{mallory.name} \(uid {mallory.uid}\), \S+ \(pid {taker.pid}\)"
    assert re.match(rf"bob: left out: port {port} is taken by {who}: end that", told)


def test_who_had_a_database_and_has_none_stays_as_before(servers: FakeServers) -> None:
    """Their disk may not be mounted: with that, a newer T3 would be at their data without a stop, a
    trial or a snapshot."""
    servers.account_dirs["bob"] = [snapshot()]
    servers.missing = {"bob"}
    assert servers.bump() == ["alice"]
    assert len(servers.warned) == 1
    assert "bob: stays on 0.0.24: " in servers.warned[0]
    servers.account_dirs["bob"] = []
    assert servers.bump() == ["alice", "bob"], "who never had one is new"


def test_who_has_a_database_that_is_not_copied_and_no_other_stays_as_before(
    servers: FakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 39. They look like somebody new, who needs no snapshot."""
    monkeypatch.setattr(
        snapshots.Snapshots,
        "why_uncovered",
        lambda _, user: "statev2.sqlite is not backed up" if user == "bob" else "",
    )
    servers.missing = {"alice", "bob"}
    assert servers.bump() == ["alice"]
    assert servers.warned == ["bob: stays on 0.0.24: statev2.sqlite is not backed up"]


def test_a_disk_of_a_home_without_room_for_the_way_back_is_told(servers: FakeServers) -> None:
    """A newer T3 that fills it would fail, and the data of before could not be put back beside what
    it has made. Its owner's worker is asked, and others are moved."""
    servers.bytes["alice"] = 100 << 20
    assert servers.bump() == ["alice", "bob"]
    servers.free["alice"] = 150 << 20
    assert servers.bump() == ["bob"]
    assert "150 MiB are free there, and a bump may take 200: make room" in servers.warned[0]


@pytest.mark.parametrize(
    ("own", "next_one", "measured", "seconds", "room"),
    [
        (LIVE, LIVE, None, 14, 2000),
        (LIVE, LIVE, 3.0, 3, 2000),
        (LIVE, SUCCESSOR, None, 31, 3600),  # of V1's alone a copy is made, which grows
        (LIVE, SUCCESSOR, 3.0, 20, 3600),
        (LIVE, None, None, 31, 3600),  # what isn't known is the greater
        (SUCCESSOR, SUCCESSOR, None, 14, 2000),
        (None, SUCCESSOR, None, 14, 2000),
    ],
)
def test_the_forecast_of_a_move_follows_from_the_sizes_of_what_is_there(
    own: str | None, next_one: str | None, measured: float | None, seconds: int, room: int
) -> None:
    states = (DatabaseState(LIVE, 800 << 20, True), DatabaseState("x.sqlite", 200 << 20, False))
    live = Activity(30, 0, databases=states, free_bytes=2500 << 20)
    found = forecast_move(live, own, next_one, measured)
    assert str(found) == (
        f"about {seconds} s without a server; "
        f"takes up to {room} of the 2500 MiB that are free in its home"
    )
    assert bool(found.why_no_room) == (room > 2500)


def test_the_forecast_takes_what_the_last_move_of_the_account_took(servers: FakeServers) -> None:
    said: list[str] = []
    servers.machine = replace(servers.machine, say=said.append)
    for number, seconds in enumerate((9.0, 7.4, None)):  # the last was interrupted
        move = Move("alice", OLD, NEW, "x", phase=journal.DONE, seconds=seconds)
        servers.machine.journals.end(Journal("bump", NEW, str(number), (move,), ended="x"))
    found = Candidates(servers.machine, NEW, asked=True, only_tried=True)
    found.choose(servers.everybody, servers.everybody)
    found.say_forecasts()
    assert [line.partition(" s without")[0] for line in said] == [
        "forecast: alice: about 7",
        "forecast: bob: about 4",
    ]


def test_room_for_the_gate_grows_with_the_greatest_account(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the program's room is not asked for where it is there already."""
    monkeypatch.setattr(Installations, "is_installed", lambda *_: True)
    status = os.statvfs("/var/lib")
    free = status.f_bavail * status.f_frsize
    known = {"alice": [snapshot(1)], "bob": [snapshot(free // 8)]}
    preflight.check_disk_space(machine.installations, NEW, known)
    known["carol"] = [snapshot(free // 2)]
    with pytest.raises(Failure, match=r"MiB are free there, and a bump may take \d+: make room"):
        preflight.check_disk_space(machine.installations, NEW, known)


def test_a_database_that_cannot_be_read_keeps_no_other_account(servers: FakeServers) -> None:
    """Garbage in it, or a home that does not answer: only that account is frozen."""
    servers.unread["alice"] = "alice: it took too long"
    assert servers.bump() == ["bob"]
    assert servers.warned == [
        "alice: left out: it took too long; it alone is frozen; next: t3-autoupdate thaw --user alice"
    ]
    assert servers.bump() == ["bob"], "it stays so until it is thawed"
    assert "alice: stays on 0.0.24: frozen: " in servers.warned[-1]


def test_a_trial_freezes_nobody(servers: FakeServers) -> None:
    servers.unread["alice"] = "alice: it took too long"
    with pytest.raises(Reached):
        upgrade.bump_accounts(servers.machine, NEW, asked=True, gate_only=True)
    assert servers.tried == ["bob"]
    assert servers.machine.why_frozen("alice") is None


def test_systemd_that_does_not_answer_is_no_accounts_fault(
    servers: FakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unanswered(one: Server) -> bool:
        raise SystemdUnanswered("systemctl show failed: Connection reset by peer")

    servers.ports["bob"] = None
    monkeypatch.setattr(Server, "runs", unanswered)
    with pytest.raises(SystemdUnanswered):
        upgrade.bump_accounts(servers.machine, NEW, asked=True)
    assert servers.machine.left_out == set()


@pytest.mark.parametrize("number", [1, 2])
def test_who_cannot_be_taken_over_keeps_no_other_and_all_of_them_end_it(
    machine: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    """A link that leads nowhere of ours; where that is so of all, nothing becomes the launcher."""
    monkeypatch.setattr(adopt, "read_unit", lambda: "")
    users = ("alice", "bob")
    for user in users[:number]:
        link = machine.installations.root / user / "current"
        link.unlink()
        link.symlink_to("/somewhere/else")
    accounts = [Account(user, 1000, 1000, (), tmp_path / user) for user in users]
    everybody = [Server(one, None, None, tmp_path, lambda _: None) for one in accounts]
    called = tmp_path / "t3"
    called.symlink_to(machine.installations.launcher)
    refused: dict[str, str] = {}

    def take_over() -> str:
        return adopt.adopt_program(
            machine.installations, called, everybody, print, refused.__setitem__
        )

    if number == 1:
        assert take_over() == OLD
        assert list(refused) == ["alice"]
        assert "which is no version" in refused["alice"]
    else:
        with pytest.raises(Failure, match=r"alice: .*which is no version; bob: "):
            take_over()
        assert refused == {}
