"""What a live database says of T3: that there is none is said, and everything else that goes wrong
is an error."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from fake_t3 import DATA
from support.filesystems import hanging
from support.t3_data import real_database
from support.t3_server import serving, t3_program
from support.users import needs_root

from demo.users import User
from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.autoupdate.activity import read_activity
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.transient_unit import Done
from t3_backup.t3.databases import SUCCESSOR
from t3_backup.t3.servers import Activity, Server
from t3_backup.t3.tables import TURNS_IN_FLIGHT_QUERIES
from t3_backup.t3.versions import known_ledger


@pytest.fixture
def user(make_user) -> User:
    return make_user("s-activity", DATA / "state-0.0.24.sqlite")


def look(user: User) -> Activity:
    """What is read of an account that has a database."""
    found = read_activity(accounts.find(user.name))
    assert found is not None
    return found


def level_and_turns(user: User) -> tuple[int | None, int]:
    found = look(user)
    return found.level, found.turns


def change(user: User, statement: str) -> None:
    with closing(sqlite3.connect(user.database)) as connection:
        connection.execute(statement)
        connection.commit()
    user.give(user.database)


@needs_root
def test_level_and_turns_are_those_of_the_database(user: User) -> None:
    assert level_and_turns(user) == (30, 0)
    change(
        user,
        "INSERT INTO projection_thread_sessions (thread_id, status, active_turn_id, updated_at) "
        "VALUES ('t', 'running', 'u', '')",
    )
    assert level_and_turns(user) == (30, 1)
    change(user, "DROP TABLE projection_thread_sessions")
    assert level_and_turns(user) == (30, 0)


@needs_root
def test_of_a_v2_database_the_runs_count_and_what_v1_left_does_not(user: User) -> None:
    real_database("v2-from26-55", user.database)
    change(
        user,
        "INSERT INTO projection_thread_sessions (thread_id, status, active_turn_id, updated_at) "
        "VALUES ('t', 'running', 'u', '')",
    )
    assert level_and_turns(user) == (55, 0)
    for state in ("queued", "preparing", "starting", "running", "waiting", "completed", "failed"):
        change(
            user,
            "INSERT INTO orchestration_v2_projection_runs (run_id, thread_id, ordinal, provider, "
            f"status, requested_at, payload_json) VALUES ('{state}', '{state}', 1, '', '{state}', "
            "'', '{}')",
        )
    assert level_and_turns(user) == (55, 5)


def test_the_first_query_that_finds_its_table_counts_the_turns(tmp_path: Path) -> None:
    found = {}
    for name in ("v2-grown-61", "state-0.0.24"):
        with closing(sqlite3.connect(real_database(name, tmp_path / name))) as connection:
            for query in TURNS_IN_FLIGHT_QUERIES:
                with suppress(sqlite3.OperationalError):
                    [found[name]] = connection.execute(query).fetchone()
                    break
    assert found == {"v2-grown-61": 2, "state-0.0.24": 0}


@needs_root
def test_a_schema_that_needs_trust_is_read(user: User) -> None:
    """Row 32: by a worker that is confined."""
    real_database("v2-grown-61", user.database)
    user.give(user.database)
    found = read_activity(accounts.find(user.name))
    assert found is not None
    assert found.level == 61


@needs_root
def test_each_database_is_told_and_the_live_one_is_that_which_the_server_has_open(
    user: User,
) -> None:
    """A newer t3 that was called by hand has made the other one, and it changed last."""
    successor = real_database("v2-grown-61", user.database.with_name(SUCCESSOR))
    user.give(successor)
    found = look(user)
    assert (found.live, found.level, found.turns) == (SUCCESSOR, 61, 2)
    with serving(user, t3_program(user.home), user.database):
        found = look(user)
    assert (found.live, found.level, found.turns) == ("state.sqlite", 30, 0)
    assert found.databases[0].ledger == known_ledger("0.0.24")
    assert [(one.file, one.level, one.held) for one in found.databases] == [
        ("state.sqlite", 30, True),
        (SUCCESSOR, 61, False),
    ]
    assert found.databases[1].bytes == successor.stat().st_size
    assert (found.databases[1].ledger or ())[-1] == (61, "ProjectionThreadSweepIndexes")
    free = os.statvfs(user.database.parent)
    assert abs(found.free_bytes - free.f_bavail * free.f_frsize) < 1 << 30


@needs_root
def test_what_lies_beside_it_is_no_live_database(user: User) -> None:
    """Junk that changed last, and what is none of the user's own."""
    beside = user.database.with_name("notes.sqlite")
    beside.write_text("nothing of the kind " * 500)
    user.give(beside)
    user.database.with_name("link.sqlite").symlink_to(beside)
    found = look(user)
    assert (found.live, found.level) == ("state.sqlite", 30)
    assert [one.file for one in found.databases] == ["state.sqlite", "notes.sqlite"]
    user.database.unlink()
    user.database.symlink_to(beside)
    with pytest.raises(Failure, match=f"{user.name}: .*symlink"):
        look(user)


@needs_root
def test_a_home_that_does_not_answer_is_a_failure_within_a_time(user: User) -> None:
    """As one on a file system whose server is gone: the open of the folder never ends."""
    with hanging(user.home), pytest.raises(Failure, match=f"{user.name}: no progress for 2 s"):
        read_activity(accounts.find(user.name), seconds=2)
    assert level_and_turns(user) == (30, 0)


@needs_root
def test_no_database_is_none_and_what_is_none_fails(user: User) -> None:
    """Else an account would be switched without a snapshot."""
    account = accounts.find(user.name)
    user.database.unlink()
    assert read_activity(account) is None
    user.database.write_text("nothing of the kind " * 500)
    user.give(user.database)
    with pytest.raises(Failure, match=f"{user.name}: .* is not a SQLite database"):
        read_activity(account)
    user.database.unlink()
    user.database.symlink_to(user.home / "none")
    with pytest.raises(Failure, match=f"{user.name}: .*symlink"):
        read_activity(account)
    user.database.unlink()
    shutil.rmtree(user.database.parent)
    assert read_activity(account) is None
    user.database.parent.touch()
    with pytest.raises(Failure, match=f"{user.name}: "):
        read_activity(account)


@needs_root
def test_it_is_read_by_a_process_that_is_its_owner(user: User) -> None:
    """A file of root's in the place of the database is none of theirs."""
    user.database.chmod(0o600)
    user.database.touch()
    shutil.chown(user.database, 0, 0)
    with pytest.raises(Failure, match=f"{user.name}: "):
        read_activity(accounts.find(user.name))


@pytest.mark.parametrize(
    "said",
    [
        "[" * 100_000,
        '{"paired": ' + "[" * 100_000,
        "[1]",
        '{"paired": true}',
        '{"paired": false}',
        "1" * 5000,
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_an_owner_says_in_place_of_a_login_is_no_login_and_ends_nothing_else(
    said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Anything but a Failure would end the command where it stands, with the account between two
    versions."""
    monkeypatch.setattr(transient_unit, "as_owner", lambda *_, **__: Done(0, said, ""))
    monkeypatch.setattr(Server, "runs", lambda _: True)
    server = Server(
        Account("alice", 1000, 1000, (1000,), tmp_path),
        None,
        3773,
        tmp_path / "alice.env",
        lambda _: None,
    )
    with pytest.raises(Failure, match="alice: no login on port 3773"):
        server.log_in(tmp_path / "t3", 1, print)
    assert server.end_logins(tmp_path / "t3", 1), "and it does not say that nothing is left"
