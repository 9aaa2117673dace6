"""`pin` and `unpin` on a real store, by the command line."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from support.account_folders import publish_as
from support.host import Answer
from support.manifests import make_manifest
from support.paths import ROOT

from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store
from t3_backup.text import utc_now

Call = Callable[..., Answer]


@pytest.fixture
def account_dir(tmp_path: Path) -> list[Manifest]:
    """Those of the last four days of alice, newest first, in a store of one's own."""
    now = utc_now().replace(microsecond=0)
    snapshots = [make_manifest(4 - days, now - timedelta(days=days, hours=1)) for days in range(4)]
    snapshots[2] = replace(
        snapshots[2], verdict="damaged", reasons=("broken",), accepted_at=snapshots[1].taken_at
    )
    with Store.open(tmp_path / "store", create=True) as store:
        opened = store.account_dir("alice", create=True)
        assert opened is not None
        with opened:
            for snapshot in reversed(snapshots):
                with opened.stage_file() as staged_file:
                    os.write(staged_file.writer, b"data")
                    staged_file.settle()
                    publish_as(opened, staged_file, snapshot)
    return snapshots


@pytest.fixture
def call(tmp_path: Path) -> Call:
    def run(*words: str) -> Answer:
        line = [sys.executable, "-m", "t3_backup", *words, "--dest", str(tmp_path / "store")]
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
        return Answer.of(line, environ, cwd=Path("/"), timeout=60)

    return run


def pins(call: Call) -> dict[str, str]:
    """The pinned ones, and since when."""
    [account] = call("list", "--json").document["accounts"]
    return {
        one["name"]: one["pinned_at"]
        for one in account["snapshots"]
        if one["pinned_at"] is not None
    }


def content(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "store" / "alice").iterdir()}


def test_a_pin_is_a_key_of_the_manifest_and_unpin_makes_it_what_it_was(
    call: Call, account_dir: list[Manifest], tmp_path: Path
) -> None:
    """Row 13: the data and all else that is known of it stay."""
    before = content(tmp_path)
    name = account_dir[1].name
    answer = call("pin", "alice", name)
    assert (answer.code, answer.out, answer.err) == (0, f"pinned alice {name}\n", "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", pins(call)[name])
    after = content(tmp_path)
    assert {file for file in after if after[file] != before[file]} == {f"{name}.json"}
    now, then = (json.loads(text[f"{name}.json"]) | {"checksum": ""} for text in (after, before))
    assert now | {"pinned_at": None} == then
    answer = call("unpin", "alice", name)
    assert (answer.code, answer.out, answer.err) == (0, f"unpinned alice {name}\n", "")
    assert content(tmp_path) == before


def test_several_are_pinned_at_once_by_whatever_means_one(
    call: Call, account_dir: list[Manifest]
) -> None:
    day = account_dir[1].taken_at[:10]
    answer = call(
        "pin", "alice", "latest", day, "3d", f"{account_dir[3].name}.sqlite", account_dir[0].name
    )
    assert answer.code == 0, answer
    expected = [account_dir[0].name, account_dir[1].name, account_dir[3].name]
    assert answer.out.splitlines() == [f"pinned alice {name}" for name in expected], (
        "each once, though two are named twice"
    )
    assert list(pins(call)) == expected


def test_one_that_is_not_verified_may_be_pinned_and_keeps_its_verdict(
    call: Call, account_dir: list[Manifest]
) -> None:
    assert call("pin", "alice", account_dir[2].name).code == 0
    [row] = [line for line in call("list", "alice").out.splitlines() if account_dir[2].name in line]
    assert "damaged (accepted) (pinned)" in row


def test_the_list_shows_which_are_pinned(call: Call, account_dir: list[Manifest]) -> None:
    assert call("pin", "alice", "latest").code == 0
    rows = [line for line in call("list", "alice").out.splitlines() if " state-" in line]
    assert ["(pinned)" in row for row in rows] == [True, False, False, False]


def test_what_is_so_already_is_no_failure_and_stays_as_it_was(
    call: Call, account_dir: list[Manifest], tmp_path: Path
) -> None:
    assert call("pin", "alice", "latest").code == 0
    before = content(tmp_path)
    answer = call("pin", "alice", "latest")
    assert (answer.code, answer.out) == (0, f"alice {account_dir[0].name} is pinned already\n")
    assert content(tmp_path) == before
    answer = call("unpin", "alice", account_dir[1].name)
    assert (answer.code, answer.out) == (0, f"alice {account_dir[1].name} is not pinned\n")
    assert content(tmp_path) == before


def test_with_json_the_document_has_what_was_changed_alone(
    call: Call, account_dir: list[Manifest]
) -> None:
    assert call("pin", "alice", "latest").code == 0
    answer = call("pin", "alice", "latest", account_dir[1].name, "--json")
    assert answer.code == 0
    [account] = answer.document["accounts"]
    assert account["user"] == "alice"
    assert [one["name"] for one in account["snapshots"]] == [account_dir[1].name]
    assert account["snapshots"][0]["pinned_at"] == pins(call)[account_dir[1].name]
    assert answer.err.splitlines() == [
        f"alice {account_dir[0].name} is pinned already",
        f"pinned alice {account_dir[1].name}",
    ]


@pytest.mark.parametrize("command", ["pin", "unpin"])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("alice", "latest", "soon"), 2, r"'soon' is no snapshot's name, nor 'latest', a time .*"),
        (
            ("alice", "latest", "state-20010101T000000Z"),
            2,
            r"'state-20010101T000000Z' is no snapshot's name.*",
        ),
        (("alice", "latest", "99999w"), 1, r"no snapshot at or before 99999w"),
        (("alice", "latest", "2001-01-01"), 1, r"no snapshot at or before 2001-01-01"),
        (("bob", "latest"), 1, r"no snapshots of bob in .*"),
        (("../alice", "latest"), 1, r"no snapshots of \.\./alice in .*"),
        (("alice",), 2, r".*NAME.*--help"),
    ],
)
def test_a_name_that_means_nothing_is_one_line_and_changes_nothing(
    command: str,
    words: tuple[str, ...],
    code: int,
    said: str,
    call: Call,
    account_dir: list[Manifest],
    tmp_path: Path,
) -> None:
    """Row 20: not even by the names before it."""
    assert call("pin", "alice", account_dir[3].name).code == 0
    before = content(tmp_path)
    answer = call(command, *words)
    assert (answer.code, answer.out) == (code, ""), answer
    assert re.fullmatch(rf"t3-backup-state: {said}\n", answer.err), answer.err
    assert content(tmp_path) == before


@pytest.mark.parametrize("command", ["pin", "unpin"])
def test_while_another_holds_the_store_nothing_is_changed(
    command: str, call: Call, account_dir: list[Manifest], tmp_path: Path
) -> None:
    """Row 33."""
    before = content(tmp_path)
    fd = os.open(tmp_path / "store", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        answer = call(command, "alice", "latest")
    finally:
        os.close(fd)
    assert (answer.code, answer.out) == (75, ""), answer
    assert content(tmp_path) == before
