"""What a live database says of T3: that there is none is said, and everything else that goes wrong
is an error."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_t3 import DATA
from support.paths import ROOT

from t3_backup.accounts import Account
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.transient_unit import Done
from t3_backup.t3.servers import Activity, Server


def looked(database: Path) -> Done:
    line = [sys.executable, "-m", "t3_backup.t3.activity", str(database)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def test_level_and_turns_are_those_of_the_database(tmp_path: Path) -> None:
    database = tmp_path / "state.sqlite"
    shutil.copyfile(DATA / "state-0.0.24.sqlite", database)
    assert json.loads(looked(database).out) == {"level": 30, "turns": 0}
    with closing(sqlite3.connect(database)) as connection:
        row = "INSERT INTO projection_thread_sessions (thread_id, status, active_turn_id, updated_at) VALUES ('t', 'running', 'u', '')"
        connection.execute(row)
        connection.commit()
    assert json.loads(looked(database).out) == {"level": 30, "turns": 1}


def test_no_database_is_null_and_what_is_none_fails(tmp_path: Path) -> None:
    assert (looked(tmp_path / "none").out, looked(tmp_path / "none").code) == ("null\n", 0)
    (tmp_path / "text").write_text("nothing of the kind " * 500)
    assert looked(tmp_path / "text").code == 1
    (tmp_path / "file").touch()
    assert looked(tmp_path / "file" / "state.sqlite").code == 1
    (tmp_path / "link").symlink_to(tmp_path / "none")
    assert looked(tmp_path / "link").code == 1


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (Done(0, "null\n", ""), None),
        (Done(0, '{"level": 31, "turns": 2}', ""), Activity(31, 2)),
        (
            Done(1, "", "Failed to connect to bus: No such file or directory"),
            "Failed to connect to bus",
        ),
        (Done(200, "null", ""), "exit status 200"),
        (Done(0, "", ""), "can't be looked at"),
        (Done(0, "[]", ""), "can't be looked at"),
        (Done(0, "[" * 100_000, ""), "can't be looked at"),
        (Done(1, "null", "", timed_out=True), "too long"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_look_that_failed_is_never_taken_for_no_database(
    done: Done, expected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else an account would be switched without a snapshot."""
    monkeypatch.setattr(transient_unit, "as_owner", lambda *_, **__: done)
    server = Server(
        Account("alice", 1000, 1000, (1000,), tmp_path), None, None, tmp_path / "alice.env"
    )
    if isinstance(expected, str):
        with pytest.raises(Failure, match=expected):
            server.read_activity()
    else:
        assert server.read_activity() == expected


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
        Account("alice", 1000, 1000, (1000,), tmp_path), None, 3773, tmp_path / "alice.env"
    )
    with pytest.raises(Failure, match="alice: no login on port 3773"):
        server.log_in(tmp_path / "t3", 1)
