"""A database that is one too many is not copied, and fails its account by name, everywhere; all
others are copied all the same. What is no database, or can't be copied, is told as such. Real
users."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.databases import commit_row, put_database
from support.host import Host
from support.paths import DATA
from support.users import needs_root

from demo.users import User
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import Failure
from t3_backup.t3.databases import LOCKS, MOST

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"
LATE = "zz.sqlite"  # comes last of all names
NAMED = f"{LATE} is not backed up: at most 16 databases of an account are copied; next: "


@pytest.fixture
def una(make_user: Callable[..., User], host: Host) -> User:
    """Who has as many databases as are copied, a state.sqlite among them; the map names them
    alone."""
    user = make_user("un-una", TINY)
    crowd(user, MOST - 1)
    host.write_map(user)
    return user


@pytest.fixture
def vic(make_user: Callable[..., User], host: Host) -> User:
    """Who has none."""
    user = make_user("un-vic")
    host.write_map(user)
    return user


def crowd(user: User, count: int) -> None:
    """So many databases that nobody knows, each of a page or two."""
    for number in range(count):
        path = user.database.parent / f"d{number:02}.sqlite"
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE things (id TEXT)")
            database.commit()
        user.give(path)
        os.utime(path, (1_700_000_000, 1_700_000_000))


def manifests(host: Host, user: User) -> list[str]:
    """The names of the manifests of a user's snapshots."""
    return sorted(path.name for path in (host.store / user.name).glob("state-*.json"))


def put(user: User, name: str = LATE) -> Path:
    """A database as a server that runs leaves it: WAL mode, and what was committed is in its
    -wal."""
    return put_database(user, name, "things")


def test_one_too_many_fails_by_name_and_the_others_are_copied(host: Host, una: User) -> None:
    """Row 39."""
    put(una)
    before = {path.name: path.read_bytes() for path in una.database.parent.glob(f"{LATE}*")}
    assert len(before) == 3
    answer = host.t3("run", "--json")
    account = answer.account(una.name)
    assert (answer.code, account["outcome"], account["uncovered"]) == (1, "failed", [LATE])
    assert account["reason"].startswith(NAMED)
    [snapshot] = account["snapshots"]
    assert (snapshot["verdict"], len(snapshot["databases"])) == ("verified", MOST)
    assert LATE not in {one["file"] for one in snapshot["databases"]}
    assert len(manifests(host, una)) == 1
    assert f"WARN: backup FAILED for {una.name} ({NAMED}" in answer.err
    assert f"backed up {una.name} -> " in answer.err
    assert {name: (una.database.parent / name).read_bytes() for name in before} == before


def test_it_fails_again_where_the_database_is_unchanged(host: Host, una: User) -> None:
    """Row 39. That nothing changes any more is what old files look like once T3 has left them."""
    assert host.t3("run").code == 0
    put(una)
    answers = [host.t3("run", "--json") for _ in range(2)]
    for answer in answers:
        account = answer.account(una.name)
        assert (answer.code, account["outcome"], account["uncovered"]) == (1, "failed", [LATE])
        assert f"unchanged {una.name}: still what " in answer.err
    assert len(manifests(host, una)) == 1


def test_status_nagios_doctor_metrics_and_the_report_name_it(host: Host, una: User) -> None:
    """Row 39. None of them but the doctor looks into the home, and that one as its owner."""
    textfiles = host.folder / "textfiles"
    textfiles.mkdir()
    assert host.t3("run", T3_BACKUP_TEXTFILE_DIR=str(textfiles)).code == 0
    put(una)
    doctor = host.t3("doctor", "--json")
    assert doctor.code == 1
    checks = [
        check for check in doctor.document["checks"] if check["name"] == f"account {una.name}"
    ]
    assert [check["status"] for check in checks] == ["fail", "ok"]
    assert checks[0]["text"].startswith(NAMED)
    assert host.t3("run", T3_BACKUP_TEXTFILE_DIR=str(textfiles)).code == 1
    plain = host.t3("status")
    assert (plain.code, f"critical: {NAMED}" in plain.out) == (1, True)
    document = host.t3("status", "--json").account(una.name)
    assert (document["state"], document["uncovered"]) == ("critical", [LATE])
    assert [trouble["text"].startswith(NAMED) for trouble in document["troubles"]] == [True]
    assert document["last_attempt"]["uncovered"] == document["last_error"]["uncovered"] == [LATE]
    line = host.t3("status", "--nagios")
    assert (line.code, line.out.startswith(f"T3-BACKUP CRITICAL - {una.name}: {NAMED}")) == (
        2,
        True,
    )
    metrics = (textfiles / "t3_backup.prom").read_text()
    assert f't3_backup_uncovered_databases{{account="{una.name}"}} 1.0' in metrics
    assert f't3_backup_last_attempt_ok{{account="{una.name}"}} 0.0' in metrics
    pytest.importorskip("jinja2")
    assert f"{LATE} is not backed up" in host.t3("report", "--html", "-").out


def test_what_is_taken_beside_it_counts_as_no_good_one(host: Host, una: User) -> None:
    """Row 39. The light may not stay green for what is left behind."""
    put(una)
    assert host.t3("run").code == 1
    found = host.t3("status", "--json").account(una.name)
    assert (found["good"], found["last_good"], found["age_seconds"]) == (1, None, None)


def test_once_it_is_gone_all_is_well_again(host: Host, una: User) -> None:
    path = put(una)
    assert host.t3("run").code == 1
    for one in path.parent.glob(f"{LATE}*"):
        one.unlink()
    assert host.t3("run").code == 0
    found = host.t3("status", "--json").account(una.name)
    assert (found["state"], found["uncovered"]) == ("ok", [])
    assert found["last_good"] is not None


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_a_lock_database_is_no_data(host: Host, una: User, name: str) -> None:
    put(una, name)
    answer = host.t3("run", "--json")
    assert (
        answer.code,
        answer.account(una.name)["outcome"],
        answer.account(una.name)["uncovered"],
    ) == (0, "backed_up", [])


def test_a_lock_database_and_a_folder_alone_are_an_account_without_a_database(
    host: Host, vic: User
) -> None:
    for name in LOCKS:
        put(vic, name)
    (vic.database.parent / "folder.sqlite").mkdir()
    answer = host.t3("run", "--json")
    assert (answer.code, answer.account(vic.name)["outcome"]) == (0, "skipped")


def test_whatever_is_called_a_database_and_can_t_be_copied_is_named(
    host: Host, make_user: Callable[..., User]
) -> None:
    """Row 39. A link, one that its owner can't read, a name that a terminal would obey."""
    user = make_user("un-xia", TINY)
    host.write_map(user)
    folder = user.database.parent
    evil = folder / "evil\n\x1b[2Jok.sqlite"
    (folder / "link.sqlite").symlink_to("/etc/passwd")
    for path in (folder / "closed.sqlite", evil):
        path.write_bytes(b"something" * 1000)
        user.give(path)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (folder / "closed.sqlite").chmod(0)
    answer = host.t3("run", "--json")
    account = answer.account(user.name)
    assert (answer.code, account["outcome"], account["uncovered"]) == (1, "backed_up", [])
    [snapshot] = account["snapshots"]
    assert [one["file"] for one in snapshot["databases"]] == ["state.sqlite"]
    named = ["closed.sqlite", evil.name, "link.sqlite"]
    assert [one["file"] for one in snapshot["missing"]] == named
    for shown in ("closed.sqlite", '"evil??[2Jok.sqlite"', "link.sqlite"):
        assert f"WARN: {user.name}: {shown} is not in {snapshot['name']}: " in answer.err
    assert "\x1b" not in answer.err
    line = host.t3("status", "--nagios").out
    assert line.startswith("T3-BACKUP CRITICAL - ")
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_nothing_is_pruned_of_an_account_that_is_not_covered(host: Host, una: User) -> None:
    """Row 39. What is in the store may be the last of what went into the other file; history is
    compacted all the same."""
    few = {"T3_BACKUP_KEEP": "1", "T3_BACKUP_COMPACT": "delta"}
    assert host.t3("run", **few).code == 0
    commit_row(una)
    put(una)
    answer = host.t3("run", "--json", **few)
    account = answer.account(una.name)
    assert (account["pruned"], len(account["compacted"])) == ([], 1)
    assert account["warnings"] == [f"{una.name}: nothing is pruned: {LATE} is not backed up"]
    by_hand = host.t3("prune", "--json", **few)
    assert (by_hand.code, by_hand.account(una.name)["pruned"]) == (1, [])
    assert f"WARN: {una.name}: nothing is pruned: {LATE} is not backed up" in by_hand.err
    planned = host.t3("prune", "--dry-run", **few)
    assert f"WARN: {una.name}: nothing is pruned: {LATE} is not backed up" in planned.out
    assert len(host.t3("list", "--json").account(una.name)["snapshots"]) == 2
    for one in una.database.parent.glob(f"{LATE}*"):
        one.unlink()
    assert len(host.t3("run", "--json", **few).account(una.name)["pruned"]) == 1


def test_nor_is_it_to_make_room(host: Host, una: User) -> None:
    """Row 39. Where the account may take no more, the newest copy is what is not made."""
    few = {"T3_BACKUP_KEEP": "1", "T3_BACKUP_MAX_BYTES": str(TINY.stat().st_size * 3 // 2)}
    assert host.t3("run", **few).code == 0
    [kept] = manifests(host, una)
    commit_row(una)
    put(una)
    answer = host.t3("run", "--json", **few)
    assert (
        answer.code,
        answer.account(una.name)["uncovered"],
        answer.account(una.name)["pruned"],
    ) == (1, [LATE], [])
    assert "(T3_BACKUP_MAX_BYTES)" in answer.account(una.name)["reason"]
    assert manifests(host, una) == [kept]


def test_a_folder_of_the_home_that_cannot_be_listed_fails_and_says_so(
    host: Host, una: User
) -> None:
    una.database.parent.chmod(0o311)
    answer = host.t3("run", "--json")
    assert (answer.code, answer.account(una.name)["outcome"]) == (1, "failed")
    assert (
        f"{una.database.parent} can't be listed (Permission denied)"
        in answer.account(una.name)["reason"]
    )


def test_a_version_is_not_changed_where_its_data_would_not_be_kept(
    host: Host, una: User, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 39. What is taken of a version that failed is kept as far as it goes: it must not keep
    anybody on that version."""
    from t3_backup.autoupdate import snapshots as module

    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-m", "t3_backup.cli.main"))
    for name, value in host.env().items():
        monkeypatch.setenv(name, value)
    snapshots = Snapshots(host.store)
    assert snapshots.take_snapshot(una.name, "prebump-0.0.25").verdict == "verified"
    assert snapshots.why_uncovered(una.name) == ""
    put(una)
    with pytest.raises(Failure, match=f"^{NAMED}"):
        snapshots.take_snapshot(una.name, "prebump-0.0.26")
    assert (
        snapshots.take_snapshot(una.name, "postbump-failed", proven=False).label
        == "postbump-failed"
    )
    other = make_user("un-wim")
    assert snapshots.why_uncovered(other.name) == ""
    crowd(other, MOST)
    put(other)
    assert snapshots.why_uncovered(other.name).startswith(NAMED)


def test_the_log_and_the_ledger_name_it(host: Host, una: User) -> None:
    put(una)
    assert host.t3("run").code == 1
    [line] = (host.folder / "log").read_text().splitlines()
    assert json.loads(line)["uncovered"] == [LATE]
    [attempt] = json.loads((host.store / "attempts.json").read_text())["accounts"][una.name]
    assert (attempt["uncovered"], attempt["outcome"], attempt["verdict"]) == (
        [LATE],
        "failed",
        "verified",
    )
