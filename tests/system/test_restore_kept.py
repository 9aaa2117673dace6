"""What a restore says it has left beside the new state is there, and where it says nothing, nothing
is."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support import sandbox
from support.host import Host
from support.live_database import change_database, dump_database
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]


@pytest.fixture
def settled(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """Somebody with a settings file, and a snapshot of both."""
    user = make_user("kept", small)
    host.write_map(user)
    path = user.database.parent / "settings.json"
    path.write_text("{}")
    user.give(path)
    assert host.t3("run").code == 0
    return user


def left(user: User) -> set[Path]:
    return set(user.database.parent.glob("*.replaced-*"))


def test_where_the_database_was_gone_the_files_that_stay_are_named(
    host: Host, settled: User
) -> None:
    for path in settled.database.parent.glob("state.sqlite*"):
        path.unlink()
    (settled.database.parent / "settings.json").write_text("changed")
    document = host.t3("restore", settled.name, "--yes", "--json").document
    assert document["kept"] == [f"{path}/old" for path in left(settled)] != []


def test_where_no_files_were_there_none_are_kept(host: Host, settled: User) -> None:
    (settled.database.parent / "settings.json").unlink()
    document = host.t3("restore", settled.name, "--yes", "--json").document
    assert document["prerestore"] is not None
    assert left(settled) == set()
    assert document["kept"] == []


def test_where_all_of_it_was_sealed_nothing_is_left(host: Host, settled: User) -> None:
    """Not even of folders that are closed to their owner."""
    secrets = settled.database.parent / "secrets"
    (secrets / "inner").mkdir(parents=True)
    (secrets / "inner/key.bin").write_text("key")
    for path in (secrets / "inner/key.bin", secrets / "inner", secrets):
        settled.give(path)
        path.chmod(0o500)
    assert host.t3("run").code == 0
    document = host.t3("restore", settled.name, "--yes", "--json").document
    assert left(settled) == set()
    assert document["kept"] == []
    assert secrets.stat().st_mode & 0o777 == 0o500
    assert (secrets / "inner/key.bin").read_text() == "key"


def test_where_all_was_gone_nothing_is_left(host: Host, settled: User) -> None:
    shutil.rmtree(settled.home / ".t3")
    document = host.t3("restore", settled.name, "--yes", "--json").document
    assert left(settled) == set()
    assert document["kept"] == []


@pytest.mark.parametrize("change", ["a row", "the schema"])
def test_a_state_that_is_kept_already_is_not_kept_twice(
    host: Host, settled: User, change: str
) -> None:
    """As a rollback has it: the newest snapshot holds what is there, databases and files."""
    first = host.snapshots(settled)[0].stem
    change_database(settled)
    if change == "the schema":  # as a migration does it
        with closing(sqlite3.connect(settled.database)) as connection:
            connection.executescript("CREATE TABLE more (a); CREATE INDEX more_a ON more (a)")
    run = host.t3("run", "--user", settled.name, "--label", "mine", "--json").document
    newest = run["accounts"][0]["snapshots"][0]["name"]
    before = dump_database(settled.database)
    answer = host.t3("restore", settled.name, "--at", first, "--kept", newest, "--yes", "--json")
    assert answer.code == 0, answer
    assert answer.document["prerestore"]["name"] == newest
    assert len(host.snapshots(settled)) == 2
    assert dump_database(settled.database) != before
    assert answer.document["undo"] == f"t3-backup-state restore {settled.name} --at {newest}"
    assert host.t3("restore", settled.name, "--at", newest, "--yes").code == 0
    assert dump_database(settled.database) == before


@pytest.mark.parametrize("changed", ["database", "file", "another database", "older"])
def test_what_was_named_and_does_not_hold_it_all_is_not_trusted(
    host: Host, settled: User, changed: str
) -> None:
    named = host.snapshots(settled)[0].stem
    if changed in ("database", "older"):
        change_database(settled)
    if changed == "older":
        assert host.t3("run").code == 0
    if changed == "file":
        (settled.database.parent / "settings.json").write_text('{"a": 1}')
    if changed == "another database":
        other = settled.database.with_name("statev2.sqlite")
        shutil.copy(settled.database, other)
        settled.give(other)
    answer = host.t3("restore", settled.name, "--at", named, "--kept", named, "--yes", "--json")
    assert answer.code == 0, answer
    assert answer.document["prerestore"]["label"] == "prerestore"
