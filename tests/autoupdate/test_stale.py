"""A newer T3 that was called by hand leaves a database that a later version would go on with,
without what was done since: it is noticed, and put aside. Real users and files."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fake_t3 import DATA
from support.t3_data import real_database
from support.t3_server import serving, t3_program
from support.users import needs_root

from demo.users import User
from t3_backup import accounts
from t3_backup.autoupdate.account_steps import LiveSteps
from t3_backup.autoupdate.activity import read_activity
from t3_backup.autoupdate.programs.installations import About, Installations
from t3_backup.autoupdate.settings import Settings
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.autoupdate.stale import find_stale, put_stale_aside
from t3_backup.errors import Failure
from t3_backup.t3.databases import SUCCESSOR, DatabaseState, stale_successor
from t3_backup.t3.servers import Activity, Server

OWN = "state.sqlite"


@pytest.mark.parametrize(
    ("own", "files", "stale"),
    [
        (OWN, [OWN, SUCCESSOR], SUCCESSOR),
        (OWN, [OWN], ""),
        (OWN, [SUCCESSOR], ""),  # the only one that there is
        (SUCCESSOR, [OWN, SUCCESSOR], ""),
        (None, [OWN, SUCCESSOR], ""),
        (OWN, [OWN, "notes.sqlite"], ""),
    ],
)
def test_what_is_stale_lies_beside_that_of_the_account_s_own_program(
    own: str | None, files: list[str], stale: str
) -> None:
    assert stale_successor(own, files) == stale
    held = tuple(DatabaseState(file, 0, held=file == SUCCESSOR) for file in files)
    assert find_stale(own, Activity(None, 0, databases=held)) == "", "somebody works with it"


@pytest.fixture
def user(make_user: Callable[..., User]) -> User:
    """One whose V2 database has a -wal that holds all of it."""
    made = make_user("stale", DATA / "state-0.0.24.sqlite")
    successor = real_database("v2-from26-55", made.database.with_name(SUCCESSOR))
    with closing(sqlite3.connect(successor)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE late (x)")
        connection.commit()
        for ending in ("-wal", "-shm"):
            shutil.copyfile(f"{successor}{ending}", f"{successor}{ending}.kept")
    for ending in ("-wal", "-shm"):
        Path(f"{successor}{ending}.kept").rename(f"{successor}{ending}")
        made.give(Path(f"{successor}{ending}"))
    made.give(successor)
    return made


def server_of(user: User) -> Server:
    return Server(accounts.find(user.name), None, None, user.home / "x.env", read_activity)


def names(user: User) -> set[str]:
    return {path.name for path in user.database.parent.iterdir()}


@needs_root
def test_a_stale_database_is_put_aside_with_all_of_it_and_kept(user: User) -> None:
    before = user.database.read_bytes()
    said = put_stale_aside(server_of(user), OWN)
    match = re.fullmatch(rf"{SUCCESSOR} was put aside as (\S+): a newer t3 .* it is kept", said)
    assert match is not None, said
    aside = match[1]
    assert aside.startswith(f"{SUCCESSOR}.replaced-")
    assert {OWN, aside, f"{aside}-wal"} <= names(user)
    assert not [name for name in names(user) if name.startswith((SUCCESSOR + "-", "late"))]
    assert SUCCESSOR not in names(user)
    with closing(sqlite3.connect(user.database.with_name(aside))) as connection:
        assert connection.execute("SELECT count(*) FROM late").fetchone() == (0,), "of its -wal"
    assert user.database.read_bytes() == before
    assert put_stale_aside(server_of(user), OWN) == "", "again is harmless"


@needs_root
def test_a_stale_database_is_put_aside_while_the_accounts_server_runs(user: User) -> None:
    with serving(user, t3_program(user.home), user.database):
        assert put_stale_aside(server_of(user), OWN)
    assert SUCCESSOR not in names(user)


@needs_root
def test_a_stale_database_that_somebody_has_open_stays(user: User) -> None:
    successor = user.database.with_name(SUCCESSOR)
    there = {name for name in names(user) if name.startswith(SUCCESSOR)}
    with (
        successor.open("rb"),
        pytest.raises(Failure, match=f"{user.name}: {SUCCESSOR} could not be put aside: .*open"),
    ):
        put_stale_aside(server_of(user), OWN)
    assert {name for name in names(user) if name.startswith(SUCCESSOR)} == there


@needs_root
@pytest.mark.parametrize(
    ("program", "is_put_aside"), [("0.1.8", True), ("0.0.42", False), ("9.9.9", False)]
)
def test_it_is_put_aside_before_a_version_that_would_go_on_with_it(
    user: User, tmp_path: Path, program: str, is_put_aside: bool
) -> None:
    warned: list[str] = []
    installations = Installations(tmp_path / "root")
    (tmp_path / "root/versions").mkdir(parents=True)
    installations.save_about(About("9.9.9", "of which little is known", database=OWN))
    steps = LiveSteps(
        server_of(user), installations, Snapshots(tmp_path), Settings(), warned.append
    )
    steps.put_aside_stale("0.0.26", program)
    assert (SUCCESSOR not in names(user)) == is_put_aside
    assert [one.startswith(f"{user.name}: {SUCCESSOR} was put aside") for one in warned] == [
        True
    ] * is_put_aside
