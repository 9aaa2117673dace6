"""A snapshot that was sealed and is not there any more is told by everything that watches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import sandbox
from support.databases import commit_row
from support.host import Host, list_snapshots, succeeded
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="changes the store")]


@pytest.fixture
def lola(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """A user with two snapshots."""
    user = make_user("loss-lola", small)
    host.write_map(user)
    for _ in range(2):
        commit_row(user)
        succeeded(host.t3())
    return user


@pytest.mark.parametrize("what", ["data", "manifest", "folder"])
def test_what_vanished_behind_the_tools_back_is_critical_until_it_is_accepted(
    host: Host, lola: User, what: str
) -> None:
    """Row 61."""
    newest, older = list_snapshots(host, lola)
    if what == "folder":
        shutil.rmtree(host.account_dir(lola))
    else:
        path = Path(older["path"])
        (path if what == "data" else path.with_suffix(".json")).unlink()
    named = (
        ("verify", lola.name, "--at"),
        ("restore", lola.name, "--yes", "--at"),
        ("pin", lola.name),
    )
    lost = {"data": [older], "manifest": [older], "folder": [older, newest]}[what]
    for words in named:
        answer = host.t3(*words, older["name"])
        assert (answer.code, "was sealed and can't be" in answer.err) == (1, what != "folder"), (
            answer
        )
        assert f"t3-backup-state accept {lola.name}" in answer.err
    for again in (False, True):
        status = host.t3("status", "--nagios")
        assert (status.code, f"{lost[0]['name']}" in status.out) == (2, True), status
        assert host.t3("status").code == 1
        doctor = host.t3("doctor")
        assert (doctor.code, f"{lost[0]['name']}" in doctor.out) == (1, True), doctor
        verified = host.t3("verify")
        assert verified.code == 1
        assert f"{lost[0]['name']}" in verified.out
        if not again:
            commit_row(lola)
            run = host.t3("run", "--keep", "1", "--json")
            assert run.code == 1, run
            assert run.account(lola.name)["lost"] == [one["name"] for one in lost]
            assert run.account(lola.name)["pruned"] == []
            assert run.account(lola.name)["snapshots"][0]["verdict"] == "verified"
    accepted = succeeded(host.t3("accept", lola.name))
    assert f"accepted that {lola.name} {lost[0]['name']} is lost" in accepted.out
    assert host.t3("status").code == 0
    commit_row(lola)
    succeeded(host.t3("run", "--keep", "1"))
    succeeded(host.t3("verify")) if what != "manifest" else None


def test_a_folder_that_is_gone_is_told_before_any_run_and_can_be_accepted(
    host: Host, lola: User
) -> None:
    """Row 61: also of a user whom the map names no more."""
    shutil.rmtree(host.account_dir(lola))
    host.map.write_text("")
    for words in (("list",), ("verify", lola.name), ("status", lola.name)):
        answer = host.t3(*words)
        assert answer.code == 1, answer
        assert "sealed and can't be found" in answer.out + answer.err
    succeeded(host.t3("accept", lola.name))
    assert host.t3("status", lola.name).code == 1  # nothing is known of them any more
    succeeded(host.t3("list"))


def test_what_is_brought_back_is_well_again(host: Host, lola: User, tmp_path: Path) -> None:
    shutil.copytree(host.account_dir(lola), tmp_path / "copy")
    shutil.rmtree(host.account_dir(lola))
    assert host.t3("status").code == 1
    shutil.move(tmp_path / "copy", host.account_dir(lola))
    succeeded(host.t3("status"))
    succeeded(host.t3("verify"))
