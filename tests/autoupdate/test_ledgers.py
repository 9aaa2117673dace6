"""Whether a database is one that a version can open is told by its list of migrations, wherever it
is asked. Real users, a real store, no servers."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fake_t3 import DATA
from support.host import Host
from support.paths import ROOT
from support.t3_data import real_database
from support.users import needs_root

from demo.users import User
from t3_backup.autoupdate import rollback_plan, snapshots, status
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.gate import gate, learn
from t3_backup.autoupdate.gate.verdict import EMPTY, Trial
from t3_backup.autoupdate.programs.installations import About, Installations
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.autoupdate.status import read_account
from t3_backup.errors import Failure
from t3_backup.t3.databases import SUCCESSOR
from t3_backup.t3.versions import known_ledger

OWN, OLD, NEW = "state.sqlite", "0.0.24", "0.0.25"
LEDGER = known_ledger(OLD) or ()
FORK = (*LEDGER[:-1], (30, "Fork"))


@pytest.mark.parametrize(
    ("about", "file", "level", "ledger", "unfit"),
    [
        (About(OLD, "", 30, LEDGER, OWN), OWN, 30, LEDGER, ""),
        (About(OLD, "", 30, LEDGER, OWN), OWN, 29, LEDGER[:-1], ""),
        (About(OLD, "", 30, LEDGER, OWN), OWN, 30, FORK, "it has seen migration 30 Fork"),
        (
            About(OLD, "", 30, LEDGER, OWN),
            SUCCESSOR,
            30,
            LEDGER,
            f"T3 {OLD} works with {OWN} alone",
        ),
        (About(OLD, "", 30, LEDGER, OWN), OWN, None, None, ""),  # it is none of T3's
        (About(OLD, "", 30, LEDGER, OWN), OWN, 31, None, "it is of level 31, above 30"),
        (About("9.9.9", "", 30), OWN, 31, FORK, "it is of level 31, above 30"),
        (About("9.9.9", "", 30), OWN, 30, FORK, ""),
        (About("9.9.9", ""), SUCCESSOR, 99, FORK, ""),  # nothing is known
    ],
)
def test_a_version_can_work_with_what_has_seen_its_own_migrations(
    about: About, file: str, level: int | None, ledger: tuple[tuple[int, str], ...], unfit: str
) -> None:
    found = about.why_unfit(file, level, ledger)
    assert found.startswith(unfit) if unfit else found == ""


def test_what_was_kept_of_a_version_before_is_read_and_known_releases_are_filled_in(
    tmp_path: Path,
) -> None:
    installations = Installations(tmp_path)
    (tmp_path / "versions").mkdir()
    for version, level in ((OLD, 30), ("0.0.43", 53), ("0.1.8", None)):
        kept = {"version": version, "origin": "npm", "level": level}
        (tmp_path / f"versions/{version}.json").write_text(json.dumps(kept))
    assert installations.about(OLD) == About(OLD, "npm", 30, LEDGER, OWN)
    assert installations.about("0.0.43") == About("0.0.43", "npm", 53, None, OWN)
    assert installations.about("0.1.8") == About("0.1.8", "npm", None, None, SUCCESSOR)
    assert installations.about("0.0.42").level == 52, "of which nothing is kept"
    of_a_fork = About(OLD, "npm", 30, FORK, OWN)
    installations.save_about(of_a_fork)
    assert installations.about(OLD) == of_a_fork, "what was tried counts more"


def trial(*, passed: bool) -> Trial:
    if not passed:
        return Trial(EMPTY, passed=False, step="start", reason="it ended with 1")
    return Trial(EMPTY, passed=True, level_after=62, database=SUCCESSOR, ledger=((62, "New"),))


def test_a_version_of_which_nothing_is_known_is_tried_on_an_empty_state_once(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def run_trial(program: Path, subject: str, *_: object) -> Trial:
        tried.append(f"{program.name} {subject}")
        return trial(passed=len(tried) > 1)

    monkeypatch.setattr(gate, "run_trial", run_trial)
    assert learn.learn_about(machine, OLD).ledger == LEDGER
    assert tried == []
    with pytest.raises(Failure, match=r"failed on an empty state at start: it ended with 1; put"):
        learn.learn_about(machine, "9.9.9")
    for _ in range(2):
        found = learn.learn_about(machine, "9.9.9")
        assert (found.level, found.ledger, found.database) == (62, ((62, "New"),), SUCCESSOR)
    assert tried == [f"9.9.9 {EMPTY}"] * 2


@pytest.fixture
def user(make_user: Callable[..., User], host: Host) -> User:
    made = make_user("ledger", DATA / "state-0.0.24.sqlite")
    host.write_map(made)
    return made


@pytest.fixture
def context(machine: Context, host: Host, user: User, monkeypatch: pytest.MonkeyPatch) -> Context:
    """One whose snapshots are in a real store."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(snapshots, "COMMAND", (sys.executable, "-m", "t3_backup.cli.main"))
    for name, value in host.env().items():
        monkeypatch.setenv(name, value)
    machine.installations.link_version(user.name, OLD)
    return replace(machine, user_map=host.map, snapshots=Snapshots(host.store))


def rename_migration(user: User, name: str) -> None:
    with closing(sqlite3.connect(user.database)) as connection:
        connection.execute(
            "UPDATE effect_sql_migrations SET name = ? WHERE migration_id = 30", (name,)
        )
        connection.commit()
    user.give(user.database)


@needs_root
def test_a_rollback_takes_the_newest_data_whose_migrations_are_its_version_s(
    context: Context, user: User
) -> None:
    """A level that is the same says nothing: a fork has used that id, too."""
    good = context.snapshots.take_snapshot(user.name, None)
    rename_migration(user, "Fork")
    context.snapshots.take_snapshot(user.name, None)
    context.installations.link_version(user.name, NEW)
    [plan], _ = rollback_plan.plan_rollback(context, [user.name], OLD)
    assert plan.move.data == good.name
    rename_migration(user, LEDGER[-1][1])
    [plan], _ = rollback_plan.plan_rollback(context, [user.name], OLD)
    assert plan.move.data is None, "the database stays"


@needs_root
def test_going_back_from_v2_says_what_is_lost_of_what_v2_has(context: Context, user: User) -> None:
    """V1's own database lies there untouched, and says nothing of what was done since."""
    v1 = context.snapshots.take_snapshot(user.name, None)
    user.give(real_database("v2-grown-61", user.database.with_name(SUCCESSOR)))
    context.snapshots.take_snapshot(user.name, None)
    program = context.installations.prefix("0.1.8") / "bin/t3"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    context.installations.link_version(user.name, "0.1.8")
    [plan], _ = rollback_plan.plan_rollback(context, [user.name], OLD)
    assert plan.move.data == v1.name
    assert "will be lost: 2 projects, 25 threads, 260 messages" in plan.lines[1]


@needs_root
def test_status_tells_of_another_list_of_migrations_and_of_a_stale_database(
    context: Context, user: User
) -> None:
    assert read_account(context, user.name, None).is_touched is False
    rename_migration(user, "Fork")
    found = read_account(context, user.name, None)
    assert (found.is_above, found.level, found.expected) == (True, 30, 30)
    assert f"the database is not one of {OLD} (it has seen migration 30 Fork" in found.trouble
    rename_migration(user, LEDGER[-1][1])
    successor = real_database("v2-from26-55", user.database.with_name(SUCCESSOR))
    user.give(successor)
    found = read_account(context, user.name, None)
    assert (found.is_above, found.stale, found.level) == (False, SUCCESSOR, 30)
    assert found.trouble.endswith(f"next: t3-autoupdate put-aside --user {user.name}")
    assert asdict(found)["stale"] == SUCCESSOR


@needs_root
def test_a_trial_is_given_all_databases_but_one_that_the_program_does_not_work_with(
    context: Context, user: User, tmp_path: Path
) -> None:
    successor = real_database("v2-from26-55", user.database.with_name(SUCCESSOR))
    user.give(successor)
    context.snapshots.take_snapshot(user.name, None)
    found = {}
    for own in (OWN, SUCCESSOR, None):
        folder = tmp_path / str(own)
        folder.mkdir()
        live = context.snapshots.write_newest(user.name, folder, own)
        found[own] = (live, sorted(path.name for path in folder.iterdir()))
    assert found[OWN] == (OWN, [OWN])
    assert found[SUCCESSOR] == found[None] == (SUCCESSOR, [OWN, SUCCESSOR])


@needs_root
def test_of_who_runs_a_program_of_their_own_no_database_is_found_fault_with(
    context: Context, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs may be a newer one, which has made it: to put an older back would be the mistake."""
    rename_migration(user, "Fork")
    user.give(real_database("v2-from26-55", user.database.with_name(SUCCESSOR)))
    why = f"{user.name}: runs T3 of their own (/x/t3): left alone; next: leave it so"
    monkeypatch.setattr(status, "why_left_alone", lambda *_: why)
    found = read_account(context, user.name, None)
    assert (found.unfit, found.stale, found.expected) == ("", "", None)
    assert f"{user.name}: {found.trouble}" == why
