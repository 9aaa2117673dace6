"""The ledger of attempts: whole whatever happens, and what is broken in it stops nobody."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.manifests import NOON, make_manifest, stored_snapshot

from t3_backup.backup.result import AccountResult
from t3_backup.monitor import attempts
from t3_backup.monitor.attempts import BROKEN, MOST, NAME, Attempt, Ledger
from t3_backup.store.manifest import Missing
from t3_backup.system.atomic_file import replace_file

ONE = Attempt("2026-11-24T03:30:12Z", "run", "backed_up", "verified", "", 0.5, 409_600, 4096)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_what_was_added_is_read_again_and_is_root_s_alone(folder: int, tmp_path: Path) -> None:
    Ledger(folder).add("alice", ONE)
    Ledger(folder).add("bob", ONE)
    assert attempts.read(folder) == {"alice": [ONE], "bob": [ONE]}
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [NAME]


def test_the_newest_of_each_account_stay_and_no_account_takes_another_s_place(folder: int) -> None:
    ledger = Ledger(folder)
    ledger.attempts = {"alice": [ONE] * MOST, "bob": [ONE]}
    last = Attempt(**{**vars(ONE), "run": "last"})
    ledger.add("alice", last)
    found = attempts.read(folder)
    assert (len(found["alice"]), found["alice"][-1], found["bob"]) == (MOST, last, [ONE])


def test_what_is_not_copied_is_kept_with_the_attempt_and_an_older_ledger_knows_of_none(
    folder: int,
) -> None:
    bare = replace(ONE, uncovered=("statev2.sqlite",))
    Ledger(folder).add("alice", bare)
    assert attempts.read(folder) == {"alice": [bare]}
    keys = {key: value for key, value in vars(bare).items() if key not in ("uncovered", "missing")}
    assert Attempt.from_json(keys) == ONE
    for name in ("uncovered", "missing"):
        for odd in ("statev2.sqlite", [1], None, {}):
            with pytest.raises(ValueError, match=name):
                Attempt.from_json(keys | {name: odd})


def test_what_could_not_be_copied_is_kept_with_the_attempt() -> None:
    lacking = make_manifest(missing=(Missing("ju\x1bnk.sqlite", "it is not a SQLite database"),))
    stored = stored_snapshot(lacking, Path("/store/x.sqlite"))
    attempt = attempts.make_attempt(
        AccountResult("alice", "unchanged", snapshots=(stored,)), "r", NOON
    )
    assert attempt.missing == ("ju?nk.sqlite",)


def test_a_database_counts_as_not_copied_until_a_run_that_looked_finds_none() -> None:
    """Row 39."""
    well, busy = ONE, replace(ONE, outcome="failed")
    first, last = (
        replace(busy, run=run, uncovered=("statev2.sqlite",)) for run in ("first", "last")
    )
    assert attempts.uncovered_since([]) is None
    assert attempts.uncovered_since([well, busy]) is None
    assert attempts.uncovered_since([first]) == (first, first)
    assert attempts.uncovered_since([first, well, first, busy, last, busy]) == (first, last)
    assert attempts.uncovered_since([first, last, busy, well]) is None
    assert attempts.uncovered_since([first, replace(well, outcome="skipped")]) is None
    assert attempts.uncovered_since([first, replace(well, outcome="unchanged"), busy]) is None


def test_an_attempt_tells_of_the_newest_snapshot_and_how_long_it_all_took() -> None:
    manifests = (
        make_manifest(2, verdict="suspect", bytes=5, wal_growth_bytes=7),
        make_manifest(1, verdict="damaged"),
    )
    two = [stored_snapshot(manifest, Path(manifest.name), "plain") for manifest in manifests]
    found = attempts.make_attempt(
        AccountResult("alice", "backed_up", "why\x1b", tuple(two), seconds=1.23456), "id", NOON
    )
    assert found == Attempt(
        "2026-11-24T12:00:00Z", "id", "backed_up", "suspect", "why?", 1.235, 5, 7
    )
    failed = attempts.make_attempt(AccountResult("alice", "failed", "busy"), "id", NOON)
    assert (failed.verdict, failed.bytes, failed.failed) == (None, 0, True)


BAD = {
    "cut short": '{"format": 1, "accounts": {"alice": [',
    "empty": "",
    "no object": "[]",
    "of another format": '{"format": 2, "accounts": {}}',
    "without accounts": '{"format": 1}',
    "an account that is no list": '{"format": 1, "accounts": {"alice": {}}}',
    "an attempt that is none": '{"format": 1, "accounts": {"alice": [7]}}',
    "a key of another type": json.dumps(
        {"format": 1, "accounts": {"alice": [vars(ONE) | {"seconds": "1"}]}}
    ),
    "a truth for a number": json.dumps(
        {"format": 1, "accounts": {"alice": [vars(ONE) | {"bytes": True}]}}
    ),
    "a time that is none": json.dumps(
        {"format": 1, "accounts": {"alice": [vars(ONE) | {"at": "noon"}]}}
    ),
    "a time without a zone": json.dumps(
        {"format": 1, "accounts": {"alice": [vars(ONE) | {"at": "2026-11-24T03:30:12"}]}}
    ),
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_broken_one_is_set_aside_and_a_new_one_begun(
    text: str, folder: int, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_text(text)
    (tmp_path / BROKEN).write_text("an earlier one")
    with pytest.raises(ValueError):
        attempts.read(folder)
    ledger = Ledger(folder)
    assert f"set aside as {BROKEN}" in ledger.problem
    assert (tmp_path / BROKEN).read_text() == text
    ledger.add("alice", ONE)
    assert attempts.read(folder) == {"alice": [ONE]}


def test_no_bytes_are_too_strange_and_no_link_is_followed(folder: int, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\xff\x00")
    assert "set aside" in Ledger(folder).problem
    (tmp_path / "elsewhere").write_text('{"format": 1, "accounts": {}}')
    (tmp_path / NAME).symlink_to("elsewhere")
    assert "set aside" in Ledger(folder).problem
    assert (tmp_path / "elsewhere").exists()
    os.mkfifo(tmp_path / NAME)
    assert "set aside" in Ledger(folder).problem


def test_a_folder_of_that_name_may_be_an_account_folder_and_is_let_be(
    folder: int, tmp_path: Path
) -> None:
    (tmp_path / NAME).mkdir()
    ledger = Ledger(folder)
    assert "move it away" in ledger.problem
    with pytest.raises(OSError):
        ledger.add("alice", ONE)
    assert os.listdir(tmp_path) == [NAME]


def test_keys_and_outcomes_of_a_later_version_are_no_harm(folder: int, tmp_path: Path) -> None:
    later = vars(ONE) | {"outcome": "unchanged", "later": 1}
    (tmp_path / NAME).write_text(
        json.dumps({"format": 1, "accounts": {"alice": [later]}, "later": 1})
    )
    assert attempts.read(folder)["alice"][0].outcome == "unchanged"


# --- the file that replaces another


@pytest.mark.parametrize("call", ["copier.sync_file", "os.rename", "os.fchmod"])
def test_a_writer_that_is_killed_leaves_the_old_file_whole_and_the_next_one_succeeds(
    call: str, folder: int, tmp_path: Path
) -> None:
    replace_file(folder, "file", b"old", 0o644)
    code = (
        "import os, signal, sys; from t3_backup.system import native as copier, atomic_file as "
        "replacing\n"
        f"{call} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "replacing.replace_file(os.open(sys.argv[1], os.O_RDONLY), 'file', b'new', 0o644)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env={"PYTHONPATH": ":".join(sys.path)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == b"old"
    replace_file(folder, "file", b"newer", 0o644)
    assert (tmp_path / "file").read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["file"]


def test_nothing_that_lies_in_the_way_is_written_through(folder: int, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("not to be touched")
    for name in ("file", "file.new"):
        (tmp_path / name).symlink_to("target")
    replace_file(folder, "file", b"new", 0o644)
    assert (tmp_path / "target").read_text() == "not to be touched"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()
