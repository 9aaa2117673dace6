"""What the gate does with a version, without its sandbox: each bad one fails at its step, and a
probe of liveness would have passed most."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import fake_t3
import pytest
from fake_t3 import DATA, SILENT, STEPS
from fake_t3.served import free_port
from support import programs, real_t3
from support.paths import ROOT
from support.t3_data import real_database

from t3_backup.autoupdate.gate import trial
from t3_backup.autoupdate.gate.history import check_content, check_ledger, read_history
from t3_backup.autoupdate.gate.steps import TurnedAway
from t3_backup.autoupdate.gate.trial import Given, Outcome, Patience
from t3_backup.t3.databases import SUCCESSOR
from t3_backup.t3.ledger import level_of, why_unfit
from t3_backup.t3.program import QUIET
from t3_backup.t3.versions import known_ledger

PATIENT = Patience(serve=30, pair=30, watch=1, stop=30, bring=1)
QUICK = {  # for what is to run out
    "slow-migration": replace(PATIENT, serve=3),
    "hung": replace(PATIENT, pair=3),
    "crash-loop": replace(PATIENT, watch=4),
    "ignores-term": replace(PATIENT, stop=3),
    "slow-stop": replace(PATIENT, stop=3),
}


LIVE = "state.sqlite"
V2_THREADS = "orchestration_v2_projection_threads"
V2_MESSAGES = "orchestration_v2_projection_messages"


def try_state(program: Path, base: Path, patience: Patience = PATIENT) -> Outcome:
    """Try it on what is there, of which the first of T3's databases is the live one."""
    userdata = base / "userdata"
    live = next((one for one in (SUCCESSOR, LIVE) if (userdata / one).exists()), "")
    return trial.try_state(Given(program, base, free_port(), live), patience)


def tried(folder: Path, version: str, variant: str = "good", data: str | None = None) -> Outcome:
    (folder / "prefix").mkdir()
    program, base = fake_t3.unpack(folder / "prefix", version, variant), folder / "base"
    (base / "userdata").mkdir(parents=True)
    if data is not None:
        give(base / "userdata/state.sqlite", data)
    return try_state(program, base, QUICK.get(variant, PATIENT))


def give(database: Path, data: str) -> None:
    """What a server of this version has made, and somebody has said something to."""
    shutil.copyfile(DATA / f"state-{data}.sqlite", database)
    with closing(sqlite3.connect(database)) as connection:
        thread = "(SELECT thread_id FROM projection_threads LIMIT 1)"
        columns = f"?, {thread}, NULL, 'user', ?, 0, '', '', NULL"
        row = f"INSERT INTO projection_thread_messages VALUES ({columns})"
        connection.executemany(row, [("1", " Build it, \n please. "), ("2", "And\n\ttest it.")])
        connection.commit()


@pytest.mark.parametrize(
    ("version", "data", "levels"),
    [
        ("0.0.24", None, (None, 30)),
        ("0.0.24", "0.0.24", (30, 30)),
        ("0.0.25", None, (None, 31)),
        ("0.0.25", "0.0.24", (30, 31)),
        ("0.0.25", "0.0.25", (31, 31)),
        ("0.0.26", "0.0.24", (30, 32)),
    ],
)
def test_a_good_version_passes(
    tmp_path: Path, version: str, data: str | None, levels: tuple[int | None, int]
) -> None:
    found = tried(tmp_path, version, data=data)
    assert found.passed, found
    assert ((found.level_before, found.level_after), found.log) == (levels, ())
    assert (found.database, found.ledger) == (LIVE, known_ledger(version))


@pytest.mark.parametrize(
    "variant", ["slow-good", pytest.param("slow-start", marks=pytest.mark.soak)]
)
def test_a_good_version_that_is_slow_at_each_step_passes(tmp_path: Path, variant: str) -> None:
    """Each takes longer than on a machine without other work, and less than the patience."""
    began = time.monotonic()
    found = tried(tmp_path, "0.1.0", variant, "0.0.24")
    assert (found.passed, found.level_after) == (True, 62), found
    assert time.monotonic() - began > 10


@pytest.mark.parametrize("version", ["0.0.42", "0.1.0"])
def test_what_a_server_is_asked_before_it_hears_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """As the real one does for a moment, and on a busy machine for longer."""
    monkeypatch.setenv("T3_FAKE_DEAF", "2")
    found = tried(tmp_path, version, data="0.0.24")
    assert (found.passed, found.probe) == (True, 200), found


def test_the_official_t3_passes_on_what_a_real_server_of_before_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*QUIET.split("="))
    base = tmp_path / "base"
    (base / "userdata").mkdir(parents=True)
    give(base / "userdata" / LIVE, "0.0.24")
    found = try_state(real_t3.program(), base)
    assert found.passed, found
    assert (found.level_before, found.ledger) == (30, known_ledger("0.0.42"))


def test_why_the_official_t3_ends_is_told_and_no_token_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a database of V2's it listens, and then it ends: thirty lines, of which the innermost
    says why."""
    monkeypatch.setenv(*QUIET.split("="))
    base = tmp_path / "base"
    (base / "userdata").mkdir(parents=True)
    real_database("v2-grown-61", base / "userdata" / LIVE)
    found = try_state(real_t3.program(), base)
    assert found.step == "start", found
    assert re.match(r"it ended with 1 before it (listened|answered): SchemaError: ", found.reason)
    assert any("PersistenceDecodeError" in line for line in found.log)
    assert not re.search(r"Token: (?!\[redacted\])|token=(?!\[redacted\])", "\n".join(found.log))


@pytest.fixture(scope="module")
def brought_over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of an account that V2 has brought V1's over of."""
    folder = tmp_path_factory.mktemp("brought-over")
    found = tried(folder, "0.1.0", data="0.0.25")
    assert found.passed, found
    assert (found.database, found.level_before, found.level_after) == (SUCCESSOR, 31, 62)
    assert found.ledger[:30] == known_ledger("0.0.24"), "those of V1 are there, by their names"
    return folder / "base/userdata"


def test_v2_passes_with_a_database_of_its_own_into_which_it_brings_that_of_v1(
    brought_over: Path,
) -> None:
    before, after = (read_history(brought_over / name) for name in (LIVE, SUCCESSOR))
    assert (before.level, after.level) == (31, 62), "V1's stays as it is"
    assert [*before.brought.values()] == [*after.brought.values()] == [1, 3, 2, 25]


@pytest.mark.parametrize("variant", ["lost-threads", "blanked"])
def test_v2_that_lost_what_v1_had_is_told(tmp_path: Path, variant: str) -> None:
    found = tried(tmp_path, "0.1.0", variant, "0.0.25")
    assert (found.passed, found.step, found.database) == (False, "data", SUCCESSOR), found


@pytest.mark.parametrize("variant", ["migrates-and-dies", "no-cookie"])
def test_a_v2_that_is_bad_as_a_v1_is_fails_at_the_same_step(tmp_path: Path, variant: str) -> None:
    assert tried(tmp_path, "0.1.0", variant, "0.0.25").step == STEPS[variant]


def test_a_later_v2_goes_on_with_the_database_of_v2(brought_over: Path, tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    program, base = fake_t3.unpack(tmp_path / "later", "0.1.8"), tmp_path / "base"
    shutil.copytree(brought_over, base / "userdata")
    found = try_state(program, base)
    assert found.passed, found
    assert (found.level_before, found.level_after, found.database) == (62, 80, SUCCESSOR)


def test_what_v2_brings_over_while_it_serves_is_waited_for(
    brought_over: Path, tmp_path: Path
) -> None:
    """One thread after the other, each later than a server is watched that seems well."""
    successor = tmp_path / "base/userdata" / SUCCESSOR
    line = programs.line("bring_over.py", str(successor), V2_THREADS, "later", "2")
    program, base = wrapped(tmp_path, f"{shlex.join(line)} &", "0.1.0")
    shutil.copytree(brought_over, base / "userdata")
    with closing(sqlite3.connect(successor, isolation_level=None)) as connection:
        connection.execute(f"CREATE TABLE later AS SELECT * FROM {V2_THREADS}")
        connection.execute(f"DELETE FROM {V2_THREADS}")
    given = Given(program, base, free_port(), LIVE)
    found = trial.try_state(given, replace(PATIENT, bring=10))
    assert found.passed, found


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM projection_threads WHERE rowid = 1", ""),
        ("DELETE FROM orchestration_events", ""),
        ("UPDATE projection_threads SET deleted_at = 'x' WHERE rowid = 1", ""),
        (f"DELETE FROM {V2_THREADS} WHERE rowid = 1", "3 threads, and there are 2"),
        (f"UPDATE {V2_MESSAGES} SET payload_json = '{{}}'", "characters in messages"),
        ("UPDATE projection_projects SET deleted_at = 'x'", "1 projects, and there are 0"),
    ],
)
def test_what_v2_has_brought_over_is_held_against_what_v1_has(
    brought_over: Path, tmp_path: Path, statement: str, told: str
) -> None:
    """V1's own tables say nothing any more, and its events are never counted."""
    userdata = shutil.copytree(brought_over, tmp_path / "userdata")
    with closing(sqlite3.connect(userdata / SUCCESSOR, isolation_level=None)) as connection:
        connection.execute(statement)
    before, after = read_history(userdata / LIVE), read_history(userdata / SUCCESSOR)
    if not told:
        check_content(before, after)
        return
    with pytest.raises(TurnedAway, match=told):
        check_content(before, after)


@pytest.mark.parametrize("variant", STEPS)
def test_a_bad_version_fails_at_its_step(tmp_path: Path, variant: str) -> None:
    found = tried(tmp_path, "0.0.25", variant, "0.0.24")
    assert not found.passed
    assert found.step == STEPS[variant], found
    assert found.reason
    assert (found.probe == 200) == (variant not in SILENT), "what a probe of GET / sees"
    assert len(STEPS) - len(SILENT) >= 5


@pytest.mark.parametrize("version", ["0.0.25", "0.1.0"])
def test_another_ledger_below_the_same_level_is_told_by_what_it_makes_of_nothing(
    tmp_path: Path, version: str
) -> None:
    made = []
    for name, data in (("empty", None), ("data", "0.0.24")):
        (tmp_path / name).mkdir()
        found = tried(tmp_path / name, version, "other-ledger", data)
        assert found.passed, found
        made.append(found.ledger)
    empty, ours = made
    assert level_of(empty) == level_of(ours)
    assert "23" in why_unfit(ours, empty)


def test_an_older_version_on_a_newer_database_fails_where_only_a_login_shows_it(
    tmp_path: Path,
) -> None:
    found = tried(tmp_path, "0.0.24", data="0.0.25")
    assert (found.passed, found.step, found.probe) == (False, "pairing", 200)
    assert "no column named role" in found.reason


def test_a_server_does_not_outlive_who_tries_it(tmp_path: Path) -> None:
    (tmp_path / "prefix").mkdir()
    program, port = fake_t3.unpack(tmp_path / "prefix", "0.0.25", "hung"), free_port()
    line = [
        sys.executable,
        "-m",
        "t3_backup.autoupdate.gate.trial",
        "--t3",
        program,
        "--base-dir",
        tmp_path / "base",
        "--port",
        str(port),
    ]
    with subprocess.Popen(list(map(str, line)), cwd=ROOT) as process:
        # not the trial itself, whose line has much of that, too
        pattern = f"bin/t3 serve --host 127.0.0.1 --port {port}"
        until = time.monotonic() + 20
        while not subprocess.run(["pgrep", "-f", pattern], capture_output=True, check=False).stdout:
            assert time.monotonic() < until, "it was never there"
            time.sleep(0.05)
        process.kill()
    while subprocess.run(["pgrep", "-f", pattern], capture_output=True, check=False).stdout:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_damaged_database_is_never_one_that_it_worked_on(tmp_path: Path) -> None:
    (tmp_path / "prefix").mkdir()
    program, base = fake_t3.unpack(tmp_path / "prefix", "0.0.24"), tmp_path / "base"
    (base / "userdata").mkdir(parents=True)
    database = base / "userdata/state.sqlite"
    shutil.copyfile(DATA / "state-0.0.24.sqlite", database)
    with closing(sqlite3.connect(database)) as connection:
        ((root,),) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'idx_orch_events_command_id'"
        )
    with database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\0" * 4096)
    found = try_state(program, base)
    assert (found.passed, found.step, found.probe) == (False, "state", None), found


def wrapped(folder: Path, script: str, version: str = "0.0.25") -> tuple[Path, Path]:
    """A program that does something of its own when it is to serve, before it is a good one; and an
    empty base-dir."""
    (folder / "prefix").mkdir()
    real, program = fake_t3.unpack(folder / "prefix", version), folder / "t3"
    program.write_text(
        f'#!/bin/sh\nreal={real}\n[ "$1" != serve ] || {{ {script}\n}}\nexec "$real" "$@"\n'
    )
    program.chmod(0o755)
    return program, folder / "base"


def test_one_that_speaks_of_a_migration_that_failed_has_not_passed_though_all_else_works(
    tmp_path: Path,
) -> None:
    program, base = wrapped(tmp_path, "echo 'Migration 31 failed: no such table'")
    found = try_state(program, base)
    assert (found.passed, found.step, found.probe) == (False, "migration", 200)
    assert found.reason == "it said: Migration 31 failed: no such table"


def test_one_that_prints_without_end_fills_nothing(tmp_path: Path) -> None:
    """With and without an end of its lines: it is a pipe that it prints to, and no file."""
    program, base = wrapped(
        tmp_path,
        f"exec 3>&1; readlink /proc/self/fd/3 >{tmp_path}/stdout; exec 3>&-; "
        "(yes; :) & (tr '\\0' x </dev/zero) &",
    )
    found = try_state(program, base, Patience(serve=10, pair=10, watch=2, stop=5, bring=1))
    assert found.passed, found
    assert (tmp_path / "stdout").read_text().startswith("pipe:")
    (tmp_path / "bad").mkdir()
    program, base = wrapped(tmp_path / "bad", "(tr '\\0' x </dev/zero) & sleep 1; exit 3")
    found = try_state(program, base, Patience(serve=10, pair=10, watch=2, stop=5, bring=1))
    assert found.step == "start"
    assert found.reason.startswith("it ended with 3 before it listened")
    assert len(found.log) <= 40
    assert all(len(line) <= 500 for line in found.log)


def test_one_that_answers_a_byte_at_a_time_has_not_answered(tmp_path: Path) -> None:
    program = tmp_path / "t3"
    program.write_text("#!/usr/bin/python3\n" + programs.text("answer_slowly.py"))
    program.chmod(0o755)
    began = time.monotonic()
    found = try_state(program, tmp_path / "base", QUICK["hung"])
    assert (found.step, found.probe) == ("serve", None)
    assert time.monotonic() - began < 15


def test_a_program_that_is_none_is_a_failure_at_its_start(tmp_path: Path) -> None:
    found = try_state(tmp_path / "nothing", tmp_path / "base")
    assert (found.passed, found.step) == (False, "start")
    assert "No such file" in found.log[-1]


def migrating(folder: Path, statement: str) -> Outcome:
    """One that has done this to the database, too, before it serves: rows stay."""
    base, run_sql = folder / "base", folder / "run_sql.py"
    run_sql.write_text(programs.text("run_sql.py"))
    database = f"{base}/userdata/state.sqlite"
    program, _ = wrapped(folder, f'/usr/bin/python3 {run_sql} close {database} "{statement}"')
    (base / "userdata").mkdir(parents=True)
    give(base / "userdata/state.sqlite", "0.0.24")
    return try_state(program, base)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE projection_thread_messages SET text = ''",
        "UPDATE projection_thread_messages SET text = substr(text, 1, 3)",
        "UPDATE projection_thread_messages SET text = '   '",
        "UPDATE orchestration_events SET payload_json = '{}'",
    ],
)
def test_one_that_keeps_the_rows_and_not_what_is_in_them_is_told(
    tmp_path: Path, statement: str
) -> None:
    found = migrating(tmp_path, statement)
    assert (found.passed, found.step) == (False, "data"), found
    assert statement.split()[1] in found.reason


OTHER_PAYLOAD = "json_set(json_remove(payload_json, '$.createdAt'), '$.v', 2)"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE projection_thread_messages SET text = trim(text)",
        "UPDATE projection_thread_messages SET text = replace(text, char(10), ' ')",
        f"UPDATE orchestration_events SET payload_json = {OTHER_PAYLOAD}",
        "ALTER TABLE projection_thread_messages RENAME COLUMN text TO content",
    ],
)
def test_one_that_brings_it_into_another_form_is_not(tmp_path: Path, statement: str) -> None:
    assert migrating(tmp_path, statement).passed


def compared(base: Path, *statements: str) -> None:
    """Compare a V2 database, in which three things were said, with what these make of it.

    No program that is here can serve it.
    """
    (base / "userdata").mkdir(parents=True)
    database = real_database("v2-from26-55", base / "userdata/state.sqlite")
    texts = (" Build it, \n please. ", "And\n\ttest it.", "Ship it.")
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for number, text in enumerate(texts):
            connection.execute(
                f"INSERT INTO {V2_MESSAGES} VALUES (?, 't', NULL, NULL, 'user', 0, '', '', "
                "json_object('text', ?))",
                (str(number), text),
            )
        before = read_history(database)
        for statement in statements:
            connection.execute(statement)
    after = read_history(database, before)
    check_ledger(before, after)
    check_content(before, after)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (f"DELETE FROM {V2_MESSAGES} WHERE message_id = '1'", "3 messages, and there are 2"),
        (f"DROP TABLE {V2_MESSAGES}", "3 messages, and there are 0"),
        (f"UPDATE {V2_MESSAGES} SET payload_json = '{{}}'", "characters in"),
        (
            f"UPDATE {V2_MESSAGES} SET payload_json = json_set(payload_json, '$.text', ' ')",
            "characters in",
        ),
        ("DELETE FROM projection_projects", "1 projects, and there are 0"),
        ("UPDATE projection_projects SET deleted_at = 'x'", "1 projects, and there are 0"),
    ],
)
def test_what_v2_has_lost_is_told(tmp_path: Path, statement: str, told: str) -> None:
    with pytest.raises(TurnedAway, match=told) as caught:
        compared(tmp_path, statement)
    assert caught.value.step == "data"


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM orchestration_events WHERE sequence < 5",
        "DROP TABLE orchestration_events",
        "DELETE FROM projection_threads",
        "DELETE FROM projection_thread_messages",
        "DELETE FROM auth_sessions",
        f"UPDATE {V2_MESSAGES} SET rowid = rowid + 1000",
        f"UPDATE {V2_MESSAGES} SET payload_json = json_set(payload_json, '$.v', 2)",
    ],
)
def test_what_v2_tidies_up_is_no_loss(tmp_path: Path, statement: str) -> None:
    compared(tmp_path, statement)
