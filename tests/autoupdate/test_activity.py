"""What a live database says of T3: that there is none is said, and everything else that goes wrong
is an error."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from fake_t3 import DATA
from support.t3_data import real_database
from support.users import needs_root

from demo.users import User
from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.autoupdate.activity import read_activity
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.transient_unit import Done
from t3_backup.t3.servers import Activity, Server
from t3_backup.t3.tables import TURNS_IN_FLIGHT_QUERIES


@pytest.fixture
def user(make_user) -> User:
    return make_user("s-activity", DATA / "state-0.0.24.sqlite")


def change(user: User, statement: str) -> None:
    with closing(sqlite3.connect(user.database)) as connection:
        connection.execute(statement)
        connection.commit()
    user.give(user.database)


@needs_root
def test_level_and_turns_are_those_of_the_database(user: User) -> None:
    account = accounts.find(user.name)
    assert read_activity(account) == Activity(30, 0)
    change(
        user,
        "INSERT INTO projection_thread_sessions (thread_id, status, active_turn_id, updated_at) "
        "VALUES ('t', 'running', 'u', '')",
    )
    assert read_activity(account) == Activity(30, 1)
    change(user, "DROP TABLE projection_thread_sessions")
    assert read_activity(account) == Activity(30, 0)


@needs_root
def test_of_a_v2_database_the_runs_count_and_what_v1_left_does_not(user: User) -> None:
    real_database("v2-from26-55", user.database)
    change(
        user,
        "INSERT INTO projection_thread_sessions (thread_id, status, active_turn_id, updated_at) "
        "VALUES ('t', 'running', 'u', '')",
    )
    account = accounts.find(user.name)
    assert read_activity(account) == Activity(55, 0)
    for state in ("queued", "preparing", "starting", "running", "waiting", "completed", "failed"):
        change(
            user,
            "INSERT INTO orchestration_v2_projection_runs (run_id, thread_id, ordinal, provider, "
            f"status, requested_at, payload_json) VALUES ('{state}', '{state}', 1, '', '{state}', "
            "'', '{}')",
        )
    assert read_activity(account) == Activity(55, 5)


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
        server.log_in(tmp_path / "t3", 1)
