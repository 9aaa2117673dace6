"""Databases that the installed SQLite can't judge: kept, told once and in the status, never taken
for good, and nothing good is pushed out by them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from support.databases import commit_row
from support.host import Host, succeeded
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

KEEP = 2


@pytest.fixture
def ursa(make_user, host: Host, small) -> User:
    user = make_user("s-unproven", small)
    host.write_map(user)
    return user


def change(user: User, make: Callable[[sqlite3.Connection], object]) -> None:
    with closing(sqlite3.connect(user.database, isolation_level=None)) as database:
        make(database)
    user.give(user.database)


def collate(database: sqlite3.Connection) -> None:
    """As a server does that brings a collation of its own."""
    database.create_collation("people", lambda one, other: (one > other) - (one < other))
    database.executescript(
        "CREATE TABLE names(n TEXT COLLATE people); CREATE INDEX names_n ON names(n);"
        "INSERT INTO names VALUES ('b'), ('a');"
    )


def search_by_newer(database: sqlite3.Connection) -> None:
    """An option of full text search that no SQLite has yet."""
    database.executescript(
        "CREATE VIRTUAL TABLE search USING fts5(t, content=''); PRAGMA writable_schema=on;"
        "UPDATE sqlite_schema SET sql = replace(sql, 'content=', 'frobnicate=1, content=')"
        " WHERE name = 'search';"
    )


def newer_view(database: sqlite3.Connection) -> None:
    database.executescript(
        "CREATE VIEW recent AS SELECT 1; PRAGMA writable_schema=on;"
        "UPDATE sqlite_schema SET sql = sql || ' FROBNICATE BY id' WHERE name = 'recent';"
    )


def commit(user: User) -> None:
    """One row more, by a SQLite that knows what is in the schema."""

    def make(database: sqlite3.Connection) -> None:
        database.execute("PRAGMA writable_schema=on")
        [(number,)] = database.execute("SELECT count(*) FROM projection_state")
        database.execute("INSERT INTO projection_state VALUES (?, 4, '')", (f"test.{number}",))

    change(user, make)


DOUBTS = {
    "collation": (collate, "no such collation sequence: people"),
    "FTS5": (search_by_newer, "unrecognized option"),
    "view": (newer_view, "syntax error"),
}


def listed(host: Host, user: User) -> list[tuple[str, str]]:
    """Name and verdict of each snapshot, the newest first."""
    found = host.t3("list", user.name, "--json").account(user.name)["snapshots"]
    return [(one["name"], one["verdict"]) for one in found]


@pytest.mark.parametrize(("make", "why"), DOUBTS.values(), ids=DOUBTS)
def test_what_cannot_be_judged_is_kept_told_once_and_pushes_no_good_one_out(
    host: Host, ursa: User, make: Callable[[sqlite3.Connection], object], why: str
) -> None:
    """Row 12, row 13."""
    for _ in range(KEEP):
        succeeded(host.t3("run", T3_BACKUP_KEEP=str(KEEP)))
        commit_row(ursa)
    good = [name for name, _ in listed(host, ursa)]
    change(ursa, make)
    first = host.t3("run", T3_BACKUP_KEEP=str(KEEP))
    assert first.code == 1
    [line] = [line for line in first.out.splitlines() if line.startswith("WARN: backed up")]
    assert "unproven" in line
    assert why in line
    assert "accept" not in line
    for _ in range(KEEP + 2):
        commit(ursa)
        answer = succeeded(host.t3("run", T3_BACKUP_KEEP=str(KEEP)))
        assert why in answer.out, "told all the same"
    unchanged = succeeded(host.t3("run", T3_BACKUP_KEEP=str(KEEP)))
    assert "unchanged" in unchanged.out
    found = listed(host, ursa)
    assert [name for name, verdict in found if verdict == "verified"] == good
    assert len([name for name, verdict in found if verdict == "unproven"]) == KEEP
    succeeded(host.t3("verify", ursa.name))


def test_what_cannot_be_judged_is_in_the_status_until_it_is_judged(host: Host, ursa: User) -> None:
    succeeded(host.t3("run"))
    good = host.t3("status", "--json").account(ursa.name)["last_good"]
    change(ursa, collate)
    assert host.t3("run").code == 1
    document = host.t3("run", "--json").account(ursa.name)
    assert (document["outcome"], document["unproven"]) == ("unchanged", "")
    status = host.t3("status", "--json").account(ursa.name)
    assert status["last_good"] == good, "neither the snapshot nor a run that found it unchanged"
    assert status["state"] == "warning"
    assert "is unproven (SQLite" in host.t3("status").out
    assert "WARNING" in host.t3("status", "--nagios").out
    assert "is unproven (SQLite" in host.t3("doctor").out
    change(ursa, lambda database: database.execute("DROP TABLE names"))
    succeeded(host.t3("run"))
    assert host.t3("status", "--json").account(ursa.name)["state"] == "ok"


@pytest.mark.parametrize(("make", "_why"), DOUBTS.values(), ids=DOUBTS)
def test_a_restore_passes_over_it_and_says_how_to_have_it(
    host: Host, ursa: User, make: Callable[[sqlite3.Connection], object], _why: str
) -> None:
    succeeded(host.t3("run"))
    change(ursa, make)
    assert host.t3("run").code == 1
    [(name, _), (good, _)] = listed(host, ursa)
    plan = succeeded(host.t3("restore", ursa.name, "--dry-run"))
    assert good in plan.out
    assert f"t3-backup-state restore {ursa.name} --at {name}" in plan.out
    document = host.t3("restore", ursa.name, "--dry-run", "--json").document
    assert (document["snapshot"]["name"], document["passed_over"]) == (good, name)
    sealed = (host.account_dir(ursa) / f"{name}.sqlite").read_bytes()
    for _ in range(2):  # over a state that can be judged, and over one that can't
        succeeded(host.t3("restore", ursa.name, "--at", name, "--yes", "--no-service"))
        assert ursa.database.read_bytes() == sealed
        commit(ursa)
    copy = host.folder / "elsewhere.sqlite"
    succeeded(host.t3("restore", ursa.name, "--at", name, "--to", str(copy)))
    assert copy.read_bytes() == sealed


def test_without_a_good_one_the_unproven_one_is_named(host: Host, ursa: User) -> None:
    change(ursa, collate)
    assert host.t3("run").code == 1
    [(name, _)] = listed(host, ursa)
    answer = host.t3("restore", ursa.name, "--yes")
    assert answer.code == 1
    assert f"--at {name}" in answer.err


def test_rows_without_a_parent_are_suspect_and_can_be_put_back(host: Host, ursa: User) -> None:
    succeeded(host.t3("run"))
    change(
        ursa,
        lambda database: database.executescript(
            "CREATE TABLE par(id INTEGER PRIMARY KEY); CREATE TABLE kid(x REFERENCES par(id));"
            "INSERT INTO kid VALUES (7);"
        ),
    )
    answer = host.t3("run")
    assert answer.code == 1
    assert "rows without a parent in kid" in answer.out
    [(name, verdict), _] = listed(host, ursa)
    assert verdict == "suspect"
    ursa.database.unlink()
    succeeded(host.t3("restore", ursa.name, "--at", name, "--yes", "--no-service"))
    with closing(sqlite3.connect(ursa.database)) as database:
        assert database.execute("SELECT x FROM kid").fetchall() == [(7,)]


def test_a_loss_is_told_though_nothing_of_the_account_was_ever_judged(
    host: Host, ursa: User
) -> None:
    """Row 41: as where the machine's SQLite lacks what T3 uses for search."""
    change(ursa, search_by_newer)
    assert host.t3("run").code == 1
    lost = "DELETE FROM projection_thread_messages WHERE rowid % 5 <> 0"
    change(ursa, lambda database: database.execute(lost))
    answer = host.t3("run")
    assert answer.code == 1
    [(_, verdict), (_, before)] = listed(host, ursa)
    assert (verdict, before) == ("suspect", "unproven")
    [line] = [line for line in answer.out.splitlines() if line.startswith("WARN: backed up")]
    assert " messages, " in line
    assert "unrecognized option" in line


def test_what_takes_a_check_too_much_memory_is_kept(host: Host, ursa: User) -> None:
    """Row 42: the worker has 512 MiB of its own."""

    def make(database: sqlite3.Connection) -> None:
        database.executescript(
            "CREATE TABLE large(a); CREATE INDEX large_a ON large(length(a));"
            "INSERT INTO large VALUES (1); PRAGMA writable_schema=on;"
            "UPDATE sqlite_schema SET sql = replace(sql, 'length(a)', 'length(hex(zeroblob(900000000)))')"
            " WHERE name = 'large_a';"
        )

    change(ursa, make)
    answer = host.t3("run")
    assert "it takes more memory than a check may have" in answer.out
    [(name, verdict)] = listed(host, ursa)
    assert verdict == "unproven"
    succeeded(host.t3("verify", ursa.name))
    succeeded(host.t3("restore", ursa.name, "--at", name, "--yes", "--no-service"))
