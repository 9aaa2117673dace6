"""Users whose name is no plain word, and users whom the map spells otherwise than the system."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import sandbox
from support.databases import commit_row
from support.host import Answer, Host, list_snapshots, succeeded
from support.paths import ROOT
from support.t3_data import real_database
from support.users import needs_root, user_name

from demo.users import User
from t3_backup.accounts import folder_name

pytestmark = needs_root

ODD = ["CORP\\bob", "josé", "a+old", "it's 5 %", "Ω.x@corp"]
SPELLED = ROOT / "tests/support/programs/nss_spelled.c"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return real_database("v1-from26-54", tmp_path / "state.sqlite")


def test_an_odd_name_is_backed_up_proven_shown_and_put_back(
    host: Host, make_user: Callable[..., User], state: Path
) -> None:
    """Row 54."""
    users = [make_user(name, state) for name in ODD]
    host.write_map(*users)
    first = succeeded(host.t3("run", "--json"))
    assert {one["user"] for one in first.document["accounts"]} == {one.name for one in users}
    folders = {entry.name for entry in host.store.iterdir() if entry.is_dir()}
    assert folders == {folder_name(one.name) for one in users}
    catalogs = {entry.name for entry in host.store.iterdir() if "+catalog" in entry.name}
    assert catalogs == {f"{folder}+catalog" for folder in folders}
    assert succeeded(host.t3("verify", "--json")).document["accounts"]
    assert succeeded(host.t3("status")).out.count(" ok") == len(users)
    for user in users:
        [snapshot] = list_snapshots(host, user)
        assert snapshot["user"] == user.name
        commit_row(user)
        restored = succeeded(host.t3("restore", user.name, "--yes", "--no-service"))
        [undo] = [line for line in restored.out.splitlines() if "t3-backup-state restore" in line]
        assert user.name in shlex.split(undo.partition("t3-backup-state restore")[2])
        assert user.database.read_bytes() == Path(snapshot["path"]).read_bytes()
    checked = host.t3("status", "--nagios")
    assert checked.out.count("_age'=") == len(users), checked
    for line in host.t3("list").out.splitlines():
        assert line.isprintable()


def test_a_name_is_one_however_it_is_spelled(
    host: Host, make_user: Callable[..., User], state: Path
) -> None:
    """Row 54. A name service takes each of these spellings for one user, and names them by its
    own."""
    user = make_user("spelled", state)
    others = [user.name.upper(), f"CORP\\{user.name}", user.name]
    host.write_map(*others)
    done = spelled(host, "run", "--json")
    assert done.code == 0, done
    assert [one["user"] for one in done.document["accounts"]] == [user.name]
    assert [entry.name for entry in host.store.iterdir() if entry.is_dir()] == [user.name]
    for words in (("run", "--user", others[1]), ("list", others[0]), ("verify", others[0])):
        answer = spelled(host, *words)
        assert answer.code == 0, answer
        assert user.name in answer.out
    restored = spelled(host, "restore", others[1], "--yes", "--no-service", "--json")
    assert restored.document["user"] == user.name, restored
    status = spelled(host, "status", "--json").document
    assert [(one["user"], one["in_map"]) for one in status["accounts"]] == [(user.name, True)]


def spelled(host: Host, *words: str) -> Answer:
    """Call the command where that name service is asked after /etc/passwd."""
    if sandbox.ACTIVE:
        pytest.skip("the unit has its own mounts")
    library, switch = host.folder / "libnss_spelled.so.2", host.folder / "nsswitch.conf"
    if not library.exists():
        options = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]
        subprocess.run(["gcc", *options, "-o", library, SPELLED], check=True)
        switch.write_text("passwd: files spelled\ngroup: files\nshadow: files\n")
    inside = 'mount --bind "$0" /etc/nsswitch.conf && exec "$@"'
    line = ["unshare", "-m", "sh", "-c", inside, switch, *host.command(*words)]
    return Answer.of(line, host.env() | {"LD_LIBRARY_PATH": str(host.folder)})


@pytest.mark.parametrize("line", ["x=../x", "x=no body", "x=CORP\\nobody", "x=-rf"])
def test_a_line_of_somebody_who_is_not_looked_after_makes_the_run_not_well(
    host: Host, make_user: Callable[..., User], state: Path, line: str
) -> None:
    """Row 54."""
    user = make_user("beside", state)
    host.map.write_text(f"x={user.name}\n{line}\n")
    answer = host.t3()
    assert answer.code == 1, answer
    assert f"WARN: {host.map}:2: no such user on this system: {line!r}" in answer.out
    assert f"backed up {user.name}" in answer.out
    assert f"no such user on this system: {line!r}" in host.t3("status").out


def test_a_name_on_the_command_line_that_nobody_has_is_not_well(host: Host) -> None:
    """Row 54."""
    host.write_map()
    for name in (user_name("none"), "../x", "CORP\\none", "x\ny", os.fsdecode(b"\xff")):
        answer = host.t3("run", "--user", name)
        assert answer.code == 1, answer
        assert "no such user on this system" in answer.out
