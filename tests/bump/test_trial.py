"""What the gate does with a version, without its sandbox: each bad one fails at its step, and a probe of liveness would have passed most."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import fake_t3
import pytest
from fake_t3 import DATA
from fake_t3.served import free_port

from t3_backup.bump.trial import Patience, Verdict, trial

QUICK = Patience(serve=3, pair=3, watch=2, stop=3)
STEPS = {
    "exits": "start",
    "crash-loop": "steady",
    "hung": "serve",
    "pairing-renamed": "pairing",
    "unreadable": "data",
    "slow-migration": "serve",
    "half-migration": "start",
    "ignores-term": "stop",
    "slow-stop": "stop",
    "mint-broken": "pairing",
    "no-cookie": "pairing",
    "not-authenticated": "pairing",
}


def tried(folder: Path, version: str, variant: str = "good", data: str | None = None) -> Verdict:
    (folder / "prefix").mkdir()
    program, base = fake_t3.unpack(folder / "prefix", version, variant), folder / "base"
    (base / "userdata").mkdir(parents=True)
    if data is not None:
        shutil.copyfile(DATA / f"state-{data}.sqlite", base / "userdata/state.sqlite")
    return trial(program, base, free_port(), QUICK)


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
def test_a_good_version_passes(tmp_path: Path, version: str, data: str | None, levels: tuple[int | None, int]) -> None:
    found = tried(tmp_path, version, data=data)
    assert found.passed, found
    assert ((found.level_before, found.level_after), found.server_version, found.log) == (levels, version, ())


@pytest.mark.parametrize("variant", STEPS)
def test_a_bad_version_fails_at_its_step(tmp_path: Path, variant: str) -> None:
    found = tried(tmp_path, "0.0.25", variant, "0.0.24")
    assert not found.passed
    assert found.step == STEPS[variant], found
    assert found.reason
    alive = variant not in ("exits", "hung", "slow-migration", "half-migration")
    assert (found.probe == 200) == alive, "what a probe of GET / sees"
    assert len([name for name in STEPS if name not in ("exits", "hung", "slow-migration", "half-migration")]) >= 5


def test_an_older_version_on_a_newer_database_fails_where_only_a_login_shows_it(tmp_path: Path) -> None:
    found = tried(tmp_path, "0.0.24", data="0.0.25")
    assert (found.passed, found.step, found.probe) == (False, "pairing", 200)
    assert "no column named role" in found.reason


def test_a_damaged_database_is_never_one_that_it_worked_on(tmp_path: Path) -> None:
    (tmp_path / "prefix").mkdir()
    program, base = fake_t3.unpack(tmp_path / "prefix", "0.0.24"), tmp_path / "base"
    (base / "userdata").mkdir(parents=True)
    database = base / "userdata/state.sqlite"
    shutil.copyfile(DATA / "state-0.0.24.sqlite", database)
    with closing(sqlite3.connect(database)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'idx_orch_events_command_id'")
    with database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\0" * 4096)
    found = trial(program, base, free_port(), QUICK)
    assert (found.passed, found.step, found.probe) == (False, "data", None), found
