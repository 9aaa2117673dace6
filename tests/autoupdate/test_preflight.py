"""What is looked at before anybody is stopped: where each server listens, whether each database is
there, and whether there is room."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.manifests import make_manifest

from t3_backup.accounts import Account
from t3_backup.autoupdate import adopt, journal_runner, npm, rollback, snapshots, upgrade
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import Move
from t3_backup.autoupdate.rollback import Plan
from t3_backup.errors import Failure
from t3_backup.store.manifest import Manifest
from t3_backup.t3.servers import Activity, Server

OLD, NEW = "0.0.24", "0.0.25"


class Reached(Exception):
    """All was well until then."""


class FakeServers:
    """Accounts whose servers run, as far as is said otherwise."""

    def __init__(self, machine: Context, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.warned: list[str] = []
        self.machine = replace(machine, warn=self.warned.append)
        self.ports: dict[str, int | None] = {"alice": 3773, "bob": 3774}
        self.stopped: set[str] = set()
        self.missing: set[str] = set()
        self.account_dirs: dict[str, list[Manifest]] = {"alice": [], "bob": []}
        self.folder = folder
        self.tried: list[str] = []
        patch.setattr(adopt, "adopt_accounts", lambda _: OLD)
        patch.setattr(Context, "servers", lambda _: [self.server(user) for user in self.ports])
        patch.setattr(Server, "runs", lambda one: one.user not in self.stopped)
        patch.setattr(
            snapshots.Snapshots, "list_snapshots", lambda _, user: self.account_dirs[user]
        )
        patch.setattr(npm, "fetch_version", lambda *_: None)

        def run_gate(machine: Context, version: str, found: list[Server], known: object) -> None:
            self.tried = [one.user for one in found]
            raise Reached

        patch.setattr(upgrade, "run_gate", run_gate)

    def server(self, user: str) -> Server:
        return Server(
            Account(user, 1000, 1000, (1000,), self.folder),
            None,
            self.ports[user],
            self.folder / f"{user}.env",
            lambda one: None if one.user in self.missing else Activity(30, 0),
        )

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
    with pytest.raises(Failure, match=r"bob: a server runs, and no T3_PORT in .*/bob\.env"):
        upgrade.bump_accounts(servers.machine, NEW, asked=True)
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
    servers.ports["bob"] = servers.ports["alice"]
    with pytest.raises(
        Failure, match=r"bob: T3_PORT in .*/bob\.env is 3773, which is that of alice"
    ):
        upgrade.bump_accounts(servers.machine, NEW, asked=True)


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


def test_a_disk_of_a_home_without_room_for_the_way_back_is_told(
    servers: FakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer T3 that fills it would fail, and the data of before could not be put back beside what
    it has made."""
    servers.account_dirs["alice"] = [snapshot(100 << 20)]
    real = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        found = list(real(path))
        if path == servers.folder:
            found[1], found[4] = 1 << 20, 150  # blocks of a MiB
        return os.statvfs_result(found)

    assert servers.bump() == ["alice", "bob"]
    monkeypatch.setattr(os, "statvfs", statvfs)
    with pytest.raises(Failure, match="150 MiB are free there, and a bump may take 200: make room"):
        upgrade.bump_accounts(servers.machine, NEW, asked=True)
