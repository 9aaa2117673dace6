"""Copies that prove nothing, and losses that no check sees: kept or refused, told, and never paid
for with the good ones."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.databases import commit_row, give_database
from support.host import Answer, Host
from support.paths import DATA
from support.sampling import sample
from support.users import needs_root

from demo.users import User
from t3_backup import accounts, settings
from t3_backup.backup import run
from t3_backup.backup.account import BackupRun
from t3_backup.store.store import Store

pytestmark = needs_root

PAGE = 4096


@pytest.fixture
def vera(make_user, host: Host, small: Path) -> User:
    user = make_user("s-verdict", small)
    host.write_map(user)
    return user


def take_days(host: Host, user: User, days: int) -> None:
    """A real snapshot on each of so many days in a row, the last of them some days ago: the clock
    alone is ours."""
    first = datetime.now(UTC) - timedelta(days=days + 2)
    values = settings.load({}, host.env(T3_BACKUP_KEEP="100"), Path("/dev/null"))
    with Store.open(host.store, create=True) as store:
        for number in range(days):
            commit_row(user)
            when = first + timedelta(days=number)
            job = BackupRun(
                values, store, None, threading.Event(), lambda *_: None, now=lambda when=when: when
            )
            [result] = run.run_backups(job, [accounts.find(user.name)], lambda _: None)
            assert not result.alarms, result


def content(host: Host, user: User) -> dict[str, str]:
    """Every file of a snapshot, by its hash: all in the account folder but for the hashes of pages,
    which are a hint for the next run."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in host.account_dir(user).iterdir()
        if path.suffix != ".pages"
    }


@contextmanager
def opened(user: User) -> Iterator[sqlite3.Connection]:
    """The user's database while its server is stopped; it is left as a stopped server leaves it."""
    with closing(sqlite3.connect(user.database, isolation_level=None)) as connection:
        yield connection
    user.give(user.database)
    assert not user.database.with_name("state.sqlite-wal").exists()


def overwrite_page(user: User, name: str) -> None:
    """Noise in the root page of that table or index, as a failing disk leaves it."""
    with opened(user) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,))
    with user.database.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(random.Random(page).randbytes(PAGE))


def lose_most_rows(user: User) -> None:
    with opened(user) as connection:
        tables = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        for table in tables:
            if table not in ("effect_sql_migrations", "sqlite_sequence"):
                connection.execute(f'DELETE FROM "{table}" WHERE rowid % 10 <> 0')


def begin_anew(user: User) -> None:
    """A server started on no database: sound, of the same level, and with nothing in it."""
    give_database(user, DATA / "state-0.0.24.sqlite")


def lower_level(user: User) -> None:
    with opened(user) as connection:
        connection.execute("DELETE FROM effect_sql_migrations WHERE migration_id = 30")


def assert_untouched(before: dict[str, str], host: Host, user: User) -> None:
    after = content(host, user)
    assert {name: after.get(name) for name in before} == before


def verdicts(host: Host, user: User) -> list[str]:
    """Newest first."""
    return [
        entry["verdict"]
        for entry in host.t3("list", user.name, "--json").account(user.name)["snapshots"]
    ]


def assert_alarm(answer: Answer, *words: str) -> None:
    assert answer.code == 1, answer
    [line] = [line for line in answer.out.splitlines() if line.startswith("WARN: backed up")][:1]
    assert all(word in line for word in words), line
    assert "1 not well" in answer.out
    assert "Traceback" not in answer.out + answer.err


def forget_free_pages(user: User) -> None:
    """The count of free pages in the header and the list of them disagree: a damage that VACUUM
    leaves out."""
    with user.database.open("r+b") as file:
        file.seek(36)
        file.write((7).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "index",
    sample(
        ["idx_orch_events_command_id", "sqlite_autoindex_auth_sessions_1"], 2, "damaged indices"
    ),
)
def test_a_damaged_index_alarms_run_after_run_and_costs_no_good_one(
    index: str, host: Host, vera: User
) -> None:
    """Row 12: the source has been damaged for months, and KEEP is as small as can be."""
    take_days(host, vera, 4)
    before = content(host, vera)
    overwrite_page(vera, index)
    for number in range(1, 4):
        commit_row(vera)
        answer = host.t3("run", "--keep", "1")
        assert_alarm(answer, vera.name, "damaged", "accept")
        assert "VACUUM INTO, tried as a second witness, failed too" in answer.out
        assert_untouched(before, host, vera)
        assert verdicts(host, vera) == ["damaged"] * number + ["verified"] * 4
    again = host.t3("run", "--keep", "1")  # nobody has written to it since
    assert again.code == 1, again
    [line] = [
        line for line in again.out.splitlines() if line.startswith(f"WARN: unchanged {vera.name}: ")
    ]
    assert "damaged" in line
    assert line.endswith(f"nothing is pruned until: t3-backup-state accept {vera.name}")
    assert verdicts(host, vera) == ["damaged"] * 3 + ["verified"] * 4
    [evidence, *_] = host.t3("list", "--json").account(vera.name)["snapshots"]
    assert evidence["reasons"]
    proven = host.t3("verify", vera.name, "--json")
    assert proven.code == 0, proven
    assert all(entry["verifies"] for entry in proven.account(vera.name)["snapshots"])


@pytest.mark.parametrize(
    "table",
    sample(
        ["projection_turns", "orchestration_events", "effect_sql_migrations"], 3, "damaged tables"
    ),
)
def test_a_damaged_table_is_kept_as_evidence_and_costs_no_good_one(
    table: str, host: Host, vera: User
) -> None:
    """Row 12."""
    take_days(host, vera, 2)
    before = content(host, vera)
    overwrite_page(vera, table)
    answer = host.t3("run", "--keep", "1")
    assert_alarm(answer, vera.name, "damaged")
    assert_untouched(before, host, vera)
    assert verdicts(host, vera) == ["damaged", "verified", "verified"]
    newest = host.snapshots(vera)[-1]
    assert newest.read_bytes()[PAGE:] == vera.database.read_bytes()[PAGE:], (
        "the evidence is what the source is"
    )


def test_where_a_vacuum_heals_the_damage_its_copy_is_kept_as_a_suspect_witness(
    host: Host, vera: User
) -> None:
    """Row 12: it is whole, and still nothing is paid for with it."""
    take_days(host, vera, 2)
    before = content(host, vera)
    forget_free_pages(vera)
    assert_alarm(host.t3("run", "--keep", "1"), vera.name, "accept")
    again = host.t3("run", "--keep", "1")  # nobody has written to it since
    assert again.code == 1, again
    assert again.out.startswith(f"WARN: unchanged {vera.name}: "), again
    assert_untouched(before, host, vera)
    assert verdicts(host, vera) == ["suspect", "damaged"] + ["verified"] * 2
    witness, evidence, *_ = host.t3("list", "--json").account(vera.name)["snapshots"]
    assert (witness["method"], evidence["method"]) == ("vacuum", "online")
    assert f"damaged source of {evidence['name']}" in witness["reasons"][0]
    with closing(sqlite3.connect(f"file:{witness['path']}?immutable=1", uri=True)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert host.t3("verify").code == 0


def test_damage_that_is_healed_and_accepted_lets_pruning_go_on_and_stays_as_evidence(
    host: Host, vera: User, small: Path
) -> None:
    """Row 12."""
    take_days(host, vera, 3)
    overwrite_page(vera, "projection_turns")
    assert host.t3("run", "--keep", "1").code == 1
    give_database(vera, small)
    held = host.t3("run", "--keep", "1")
    assert held.code == 0, held
    assert verdicts(host, vera) == ["verified", "damaged", "verified", "verified", "verified"]
    evidence = host.t3("list", "--json").account(vera.name)["snapshots"][1]["name"]
    assert f"nothing is pruned: {evidence} is damaged" in held.out
    assert host.t3("accept", vera.name).code == 0
    assert host.t3("run", "--keep", "1").code == 0
    assert verdicts(host, vera) == ["verified", "damaged"]


def damaged_schema(path: Path, small: Path) -> None:
    data = bytearray(small.read_bytes())
    data[100:PAGE] = random.Random(1).randbytes(PAGE - 100)
    path.write_bytes(data)


def no_tables(path: Path, small: Path) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA user_version=1")


def other_schema(path: Path, small: Path) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE notes (text); INSERT INTO notes VALUES ('x');"
        )


def orphaned_rows(path: Path, small: Path) -> None:
    shutil.copyfile(small, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "CREATE TABLE p (id PRIMARY KEY); CREATE TABLE c (p REFERENCES p (id)); "
            "INSERT INTO c VALUES ('nobody');"
        )


# How it is made, and what a person is told of it.
WRONG: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "an empty file": (lambda path, small: path.write_bytes(b""), "is empty"),
    "a random file": (
        lambda path, small: path.write_bytes(random.Random(1).randbytes(100 * PAGE)),
        "not a SQLite database",
    ),
    "a text": (lambda path, small: path.write_text("SQLite format 3\n" * 1000), "."),
    "a header alone": (lambda path, small: path.write_bytes(small.read_bytes()[:100]), "."),
    "cut at a page": (lambda path, small: path.write_bytes(small.read_bytes()[: 300 * PAGE]), "."),
    "cut within a page": (
        lambda path, small: path.write_bytes(small.read_bytes()[: 300 * PAGE + 77]),
        ".",
    ),
    "a damaged schema": (damaged_schema, "damaged"),
    "a database without tables": (no_tables, "is empty"),
    "a database with other tables": (other_schema, "no T3 migration level"),
    "rows without a parent": (orphaned_rows, "rows without a parent in c"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_sound_t3_database_never_counts_and_costs_nothing(
    kind: str, host: Host, vera: User, small: Path
) -> None:
    """Row 24: with snapshots before it, and as the very first one."""
    make, words = WRONG[kind]
    take_days(host, vera, 2)
    before = content(host, vera)
    make(vera.database, small)
    vera.give(vera.database)
    source = vera.database.read_bytes()
    answer = host.t3("run", "--keep", "1")
    assert answer.code == 1, answer
    assert words in answer.out
    assert "Traceback" not in answer.out + answer.err
    assert_untouched(before, host, vera)
    *later, second, first = verdicts(host, vera)
    assert (second, first) == ("verified", "verified")
    assert "verified" not in later
    shutil.rmtree(host.account_dir(vera))
    answer = host.t3("run", "--keep", "1")
    assert answer.code == 1, answer
    assert not host.account_dir(vera).exists() or "verified" not in verdicts(host, vera)
    assert vera.database.read_bytes() == source
    assert host.t3("accept", vera.name).code == 0  # the folder is gone, and somebody knows
    assert host.t3("verify").code == 0


@pytest.mark.parametrize("lose", [lose_most_rows, begin_anew, lower_level])
def test_a_source_that_lost_its_history_is_suspect_and_prunes_nothing_until_accepted(
    lose: Callable[[User], None], host: Host, vera: User
) -> None:
    """Row 34: every copy of it proves, run after run, with the smallest KEEP."""
    take_days(host, vera, 4)
    before = content(host, vera)
    lose(vera)
    for number in range(1, 5):
        commit_row(vera)
        assert_alarm(
            host.t3("run", "--keep", "1"), "suspect", f"t3-backup-state accept {vera.name}"
        )
        assert_untouched(before, host, vera)
        assert verdicts(host, vera) == ["suspect"] * number + ["verified"] * 4
    accepted = host.t3("accept", vera.name)
    assert accepted.code == 0, accepted
    assert accepted.out.count("accepted ") == 4
    assert_untouched(before, host, vera)
    # What comes now is measured by the new state, and pruning goes on; the accepted one stays as
    # evidence, and counts for nothing.
    answer = host.t3("run", "--keep", "1")
    assert answer.code == 0, answer
    assert answer.out.count(f"pruned {vera.name}: ") == 7
    assert verdicts(host, vera) == ["verified", "suspect"]
    assert host.t3("verify").code == 0


@pytest.mark.parametrize("lose", [lose_most_rows, begin_anew])
def test_what_was_accepted_pushes_no_good_one_out(
    lose: Callable[[User], None], host: Host, vera: User, small: Path
) -> None:
    """Row 34: the loss was not meant after all; `accept` was only the way to have pruning go on."""
    take_days(host, vera, 3)
    before = content(host, vera)
    lose(vera)
    for _ in range(3):
        commit_row(vera)
        assert host.t3("run", "--keep", "4").code == 1
    assert host.t3("accept", vera.name).code == 0
    give_database(vera, small)
    assert host.t3("run", "--keep", "4").code == 0
    assert_untouched(before, host, vera)
    assert verdicts(host, vera) == ["verified"] + ["suspect"] * 3 + ["verified"] * 3


def test_a_level_that_fell_is_named(host: Host, vera: User) -> None:
    """Row 34."""
    assert host.t3().code == 0
    lower_level(vera)
    assert_alarm(host.t3(), "suspect", "T3 level 29, 30 in ")


def test_a_source_that_comes_back_is_good_at_once_but_the_hold_stays(
    host: Host, vera: User, small: Path
) -> None:
    """Row 34: the bad moment was a moment; what was kept of it still wants somebody to look."""
    take_days(host, vera, 2)
    begin_anew(vera)
    assert host.t3("run", "--keep", "1").code == 1
    give_database(vera, small)
    answer = host.t3("run", "--keep", "1")
    assert answer.code == 0, answer
    assert "nothing is pruned" in answer.out
    assert verdicts(host, vera) == ["verified", "suspect", "verified", "verified"]


def test_one_users_loss_holds_nobody_elses_pruning(
    host: Host, vera: User, make_user, small: Path
) -> None:
    """Row 34."""
    other = make_user("s-verdict2", small)
    host.write_map(vera, other)
    assert host.t3().code == 0
    begin_anew(vera)
    commit_row(other)
    answer = host.t3("run", "--keep", "1")
    assert answer.code == 1, answer
    assert f"pruned {other.name}: " in answer.out
    assert len(host.snapshots(vera)) == 2
    assert len(host.snapshots(other)) == 1


def test_a_database_that_is_gone_is_an_alarm_where_there_were_snapshots_and_none_where_not(
    host: Host, vera: User
) -> None:
    """Row 20 and Row 34."""
    vera.database.unlink()
    assert host.t3().code == 0
    give_database(vera, DATA / "state-0.0.24.sqlite")
    assert host.t3().code == 0
    before = content(host, vera)
    vera.database.unlink()
    answer = host.t3("run", "--keep", "1")
    assert answer.code == 1, answer
    assert "was it deleted?" in answer.out
    assert content(host, vera) == before


def test_accept_of_somebody_without_snapshots_fails(host: Host, vera: User) -> None:
    assert host.t3().code == 0
    for name in ("t3t-nobody-such", "../x", ""):
        answer = host.t3("accept", name)
        assert (answer.code, answer.out) == (1, ""), answer
        assert answer.err == f"t3-backup-state: no snapshots of {name} in {host.store}\n"


def test_accept_where_nothing_waits_changes_nothing(host: Host, vera: User) -> None:
    assert host.t3().code == 0
    before = content(host, vera)
    answer = host.t3("accept", vera.name)
    assert (answer.code, answer.out) == (0, f"{vera.name}: no snapshot waits to be accepted\n")
    assert content(host, vera) == before
