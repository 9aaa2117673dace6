"""Nothing that a T3 server has open is missed in silence: an account is backed up whole, or fails
by the name of what is not. Row 39, row 43."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from support.host import Answer, Host
from support.t3_data import real_database
from support.t3_server import serving, t3_program
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

V1, V2 = "v1-real-0.0.42-from26-52", "v2-grown-61"
Serve = Callable[..., Any]


@pytest.fixture
def kim(make_user: Callable[..., User], host: Host) -> User:
    """A user with a V1 and a V2 database."""
    user = make_user("cov-kim")
    lay(user, V1, "state.sqlite")
    lay(user, V2, "statev2.sqlite")
    host.write_map(user)
    return user


@pytest.fixture
def serve(kim: User, host: Host) -> Serve:
    return partial(serving, kim, t3_program(host.folder))


def lay(user: User, name: str, file: str, folder: Path | None = None) -> Path:
    """A real database in a user's state folder, or in another."""
    place = folder or user.database.parent
    place.mkdir(parents=True, exist_ok=True)
    path = real_database(name, place / file)
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", str(user.home)], check=True)
    return path


def account(answer: Answer, user: User) -> dict[str, Any]:
    found: dict[str, Any] = next(
        one for one in json.loads(answer.out)["accounts"] if one["user"] == user.name
    )
    return found


def run(host: Host, user: User) -> dict[str, Any]:
    """What a run says of the account."""
    answer = host.t3("run", "--json")
    found = account(answer, user)
    assert answer.code == (1 if found["outcome"] == "failed" else 0), answer
    return found


def files(found: dict[str, Any]) -> dict[str, bool]:
    """The databases of a new snapshot, and which of them is live."""
    [snapshot] = found["snapshots"]
    return {one["file"]: one["live"] for one in snapshot["databases"]}


def test_what_the_server_has_open_is_the_live_one(host: Host, kim: User, serve: Serve) -> None:
    """Whatever changed last: a person may have looked into the other by hand."""
    for live, other in (("state.sqlite", "statev2.sqlite"), ("statev2.sqlite", "state.sqlite")):
        with serve(kim.database.parent / live):
            os.utime(kim.database.parent / other)
            found = run(host, kim)
        assert (found["outcome"], found["uncovered"]) == ("backed_up", [])
        assert files(found) == {live: True, other: False}


def test_without_a_server_the_one_that_changed_last_is(host: Host, kim: User) -> None:
    os.utime(kim.database)
    assert files(run(host, kim)) == {"state.sqlite": True, "statev2.sqlite": False}


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_server_on_another_base_directory_fails_the_account_by_the_path(
    host: Host, kim: User, serve: Serve, how: str
) -> None:
    """What is where it is expected is backed up all the same, and nothing is pruned."""
    other = kim.home / "elsewhere"
    path = lay(kim, V2, "statev2.sqlite", other / "userdata")
    words = {"option": ("serve", "--base-dir", str(other)), "variable": ("serve",)}[how]
    variables = {"option": (), "variable": (f"T3CODE_HOME={other}",)}[how]
    with serve(path, words=words, variables=variables) as process:
        found = run(host, kim)
        nagios = host.t3("status", "--nagios")
        doctor = host.t3("doctor")
    assert (found["outcome"], found["uncovered"]) == ("failed", [str(path)])
    assert files(found) == {"state.sqlite": False, "statev2.sqlite": True}
    assert f"T3 has {path} open (pid {process.pid}), which is not backed up" in found["reason"]
    assert f'T3_BACKUP_BASE_DIRS="{kim.name}={other}"' in found["reason"]
    assert "nothing is pruned" in " ".join(found["warnings"])
    assert (nagios.code, str(path) in nagios.out) == (2, True)
    assert (doctor.code, str(path) in doctor.out) == (1, True)
    assert f'T3_BACKUP_BASE_DIRS="{kim.name}={other}"' in doctor.out


def test_what_is_typed_as_it_is_told_covers_it(host: Host, kim: User, serve: Serve) -> None:
    other = kim.home / "elsewhere"
    path = lay(kim, V2, "statev2.sqlite", other / "userdata")
    host.environ["T3_BACKUP_BASE_DIRS"] = f"{kim.name}={other}"
    with serve(path, words=("serve", "--base-dir", str(other))):
        found = run(host, kim)
    assert (found["outcome"], files(found)) == ("backed_up", {"statev2.sqlite": True})


def test_a_base_directory_outside_of_the_home_is_backed_up(
    host: Host, kim: User, serve: Serve
) -> None:
    other = host.folder / "srv" / "kim"
    lay(kim, V2, "statev2.sqlite", other / "userdata")
    subprocess.run(["chown", "-R", f"{kim.uid}:{kim.gid}", str(other)], check=True)
    host.environ["T3_BACKUP_BASE_DIRS"] = f"{kim.name}={other}"
    with serve(other / "userdata" / "statev2.sqlite", words=("serve", f"--base-dir={other}")):
        found = run(host, kim)
    assert (found["outcome"], files(found)) == ("backed_up", {"statev2.sqlite": True})


def test_one_that_is_meant_not_to_be_backed_up_is_nobody_s_alarm(
    host: Host, kim: User, serve: Serve
) -> None:
    path = lay(kim, V1, "state.sqlite", kim.home / ".t3" / "dev" / "userdata")
    host.environ["T3_BACKUP_IGNORE"] = f"{kim.home}/.t3/*/userdata/*.sqlite"
    with serve(path, words=("serve", "--base-dir", str(kim.home / ".t3" / "dev"))):
        found = run(host, kim)
    assert (found["outcome"], found["uncovered"]) == ("backed_up", [])


def test_a_new_name_outside_of_the_state_folder_fails_the_account(
    host: Host, kim: User, serve: Serve
) -> None:
    path = kim.home / ".t3" / "next" / "threads.db"
    with serve(path, kim.database):
        found = run(host, kim)
    assert (found["outcome"], found["uncovered"]) == ("failed", [str(path)])


def test_a_third_database_is_in_the_snapshot(host: Host, kim: User, serve: Serve) -> None:
    path = lay(kim, V2, "statev3.sqlite")
    with serve(path, kim.database.parent / "statev2.sqlite"):
        found = run(host, kim)
    assert (found["outcome"], found["uncovered"]) == ("backed_up", [])
    assert set(files(found)) == {"state.sqlite", "statev2.sqlite", "statev3.sqlite"}


def test_an_agent_s_own_database_and_t3_s_locks_are_nobody_s_alarm(
    host: Host, kim: User, serve: Serve
) -> None:
    lock = kim.database.parent / "server-lock.sqlite"
    agents = [str(kim.home / ".codex" / "state_5.sqlite"), str(kim.home / "opencode.db")]
    with serve(kim.database, "--lock", lock, "--agent", *agents):
        found = run(host, kim)
    assert (found["outcome"], found["uncovered"]) == ("backed_up", [])
    assert "server-lock.sqlite" not in files(found)
    assert not [one for one in found["warnings"] if "codex" in one or "opencode" in one]


def test_a_process_that_is_no_server_and_holds_a_database_is_told(
    host: Host, kim: User, serve: Serve
) -> None:
    with serve(kim.database, "--agent", str(kim.database.parent / "statev2.sqlite")):
        found = run(host, kim)
    assert found["outcome"] == "backed_up"
    [told] = [one for one in found["warnings"] if "is no T3 server" in one]
    assert told.startswith(f"{kim.name}: ")
    assert "statev2.sqlite" in told


def test_what_a_newer_t3_has_made_beside_that_of_a_running_server_is_told(
    host: Host, kim: User, serve: Serve
) -> None:
    with serve(kim.database):
        found = run(host, kim)
        doctor = host.t3("doctor")
    assert found["outcome"] == "backed_up"
    [told] = [text for text in found["warnings"] if "a newer t3 was called by hand" in text]
    assert told.endswith(f"next: t3-autoupdate put-aside --user {kim.name}")
    assert told.removeprefix(f"{kim.name}: ") in doctor.out
    with serve(kim.database.parent / "statev2.sqlite"):
        assert "was called by hand" not in str(run(host, kim)["warnings"])


def test_two_servers_on_one_base_directory_are_told_with_both_pids(
    host: Host, kim: User, serve: Serve
) -> None:
    with serve(kim.database) as one, serve(kim.database) as other:
        found = run(host, kim)
    first, second = sorted((one.pid, other.pid))
    [told] = [text for text in found["warnings"] if "two T3 servers" in text]
    assert f"(pids {first} and {second})" in told


def test_a_database_that_was_removed_under_its_server_fails_the_account(
    host: Host, kim: User, serve: Serve
) -> None:
    """It is gone when the server ends, and what has its name now is another."""
    with serve(kim.database):
        kim.database.rename(kim.database.with_suffix(".old"))
        shutil.copy(kim.database.with_suffix(".old"), kim.database)
        os.chown(kim.database, kim.uid, kim.gid)
        kim.database.with_suffix(".old").unlink()
        found = run(host, kim)
    assert found["outcome"] == "failed"
    assert found["uncovered"] == [str(kim.database)]
    assert f"systemctl restart t3-serve@{kim.name}" in found["reason"]


def test_an_account_without_a_database_where_it_is_expected_is_not_ok(
    host: Host, make_user: Callable[..., User]
) -> None:
    """`no database` is true of a folder, and not of the user."""
    user = make_user("cov-bare")
    host.write_map(user)
    path = lay(user, V2, "statev2.sqlite", user.home / "t3" / "userdata")
    answer = host.t3("run")
    assert (answer.code, "skip" in answer.out) == (0, True), answer
    server = t3_program(host.folder)
    with serving(user, server, path, words=("serve", "--base-dir", str(user.home / "t3"))):
        found = run(host, user)
    assert (found["outcome"], found["uncovered"]) == ("failed", [str(path)])
    assert host.t3("status", "--nagios").code == 2


def test_v2_alone_is_backed_up(host: Host, kim: User) -> None:
    kim.database.unlink()
    found = run(host, kim)
    assert (found["outcome"], files(found)) == ("backed_up", {"statev2.sqlite": True})
    [snapshot] = found["snapshots"]
    assert snapshot["verdict"] == "verified"
    assert snapshot["t3_level"] == 61
    with closing(apsw.Connection(snapshot["path"], flags=apsw.SQLITE_OPEN_READONLY)) as copy:
        query = "SELECT count(*) FROM orchestration_v2_projection_threads"
        assert copy.cursor().execute(query).fetchall() == [(28,)]
