"""A command that was started with closed standard streams, or whose output nobody can write down:
it does its work, says so by its exit code, and never ends in a traceback."""

from __future__ import annotations

import itertools
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import sandbox
from support.databases import commit_row
from support.host import Host, list_snapshots, succeeded
from support.live_database import dump_database
from support.paths import ROOT
from support.sampling import is_soak, sample
from support.t3_data import real_database
from support.users import needs_root

from demo.users import User
from t3_backup.cli.commands import COMMANDS

pytestmark = [
    needs_root,
    pytest.mark.skipif(sandbox.ACTIVE, reason="systemd opens the streams of a unit"),
]

SOME = [(1,), (0, 1, 2)]
CLOSED = [fds for count in (1, 2, 3) for fds in itertools.combinations((0, 1, 2), count)]
WORDS = {
    "report": ["--html", "-"],
    "restore": ["USER", "--yes", "--no-service"],
    "accept": ["USER"],
    "pin": ["USER", "latest"],
    "unpin": ["USER", "latest"],
}
CALLS = [
    *([name, *WORDS.get(name, [])] for name in COMMANDS if name != "hooks"),  # which says nothing
    ["status", "--nagios"],
    ["status", "--json"],
    ["restore", "USER", "--yes", "--no-service", "--json"],
    ["run", "--dry-run"],
    ["--version"],
    ["--help"],
    ["list", "--help"],
]
OTHERS = [
    ["t3_backup.autoupdate.main", "status"],
    ["t3_backup.autoupdate.main", "versions"],
    ["t3_backup.autoupdate.main", "thaw", "--json"],
    ["t3_backup.autoupdate.main", "--version"],
    ["t3_backup.autoupdate.main", "check", "--help"],
    ["t3_backup.t3.pair_command", "--version"],
    ["t3_backup.t3.pair_command", "--help"],
    ["t3_backup.t3.pair_command", "--t3", "/bin/true", "--base-dir", "/", "--port", "1"],
]


@pytest.fixture
def vera(make_user: Callable[..., User], host: Host, tmp_path: Path) -> User:
    user = make_user("lost-vera", real_database("v1-from26-54", tmp_path / "state.sqlite"))
    host.write_map(user)
    return user


def close(line: list[str], fds: tuple[int, ...]) -> list[str]:
    """The command line, started with these descriptors closed."""
    return ["sh", "-c", f'exec "$@" {" ".join(f"{fd}>&-" for fd in fds)}', "sh", *line]


def test_a_run_with_closed_streams_backs_up_and_nothing_takes_their_place(
    host: Host, vera: User
) -> None:
    """Row 53."""
    tried = CLOSED if is_soak() else SOME
    for number, fds in enumerate(tried, 1):
        commit_row(vera)
        done = call(host, close(host.command("run"), fds))
        assert (done.returncode, len(host.snapshots(vera))) == (0, number), (fds, done)
        assert bool(done.stdout) == (1 not in fds)
        assert done.stderr == ""
    assert succeeded(host.t3("verify")).out.count("verified ") == len(tried)
    assert all(one["verdict"] == "verified" for one in list_snapshots(host, vera))


@pytest.mark.parametrize("module", ["t3_backup.autoupdate.main", "t3_backup.t3.pair_command"])
def test_the_other_programs_take_closed_streams_for_nowhere(host: Host, module: str) -> None:
    """Row 53."""
    for fds in CLOSED if is_soak() else SOME:
        done = call(host, close([sys.executable, "-m", module, "--version"], fds))
        assert (done.returncode, done.stderr) == (0, ""), (fds, done)


@pytest.mark.parametrize("words", sample(CALLS, 5, "calls of a full disk"), ids=" ".join)
def test_output_that_can_t_be_written_is_exit_code_1_and_a_word(
    host: Host, vera: User, words: list[str]
) -> None:
    """Row 53."""
    succeeded(host.t3())
    commit_row(vera)
    taken = [vera.name if word == "USER" else word for word in words]
    with open("/dev/full", "w") as full:
        done = call(host, host.command(*taken), stdout=full)
    assert done.returncode == (3 if "--nagios" in words else 1), done
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert not {"Traceback", "Exception"} & set(done.stderr.split())
    if words == ["run"]:
        assert len(host.snapshots(vera)) == 2


@pytest.mark.parametrize("words", OTHERS, ids=lambda words: " ".join(words[:2]))
def test_so_it_is_with_the_other_programs(host: Host, words: list[str]) -> None:
    """Row 53."""
    host.write_map()
    env = {"T3_AUTOUPDATE_ROOT": str(host.folder), "T3_AUTOUPDATE_FREEZE": str(host.folder / "no")}
    with open("/dev/full", "w") as full:
        done = call(host, [sys.executable, "-m", *words], stdout=full, **env)
    assert done.returncode == 1, done
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert not {"Traceback", "Exception"} & set(done.stderr.split())


def test_a_run_that_can_t_tell_says_so_once_and_calls_the_hooks(host: Host, vera: User) -> None:
    """Row 53. It has failed, like any other."""
    hook = Path(host.env()["T3_BACKUP_HOOKS"]) / "note"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\nexec cat > {host.folder}/heard\n")
    hook.chmod(0o700)
    for words in (["run"], ["run", "--json"]):
        with open("/dev/full", "w") as full:
            done = call(host, host.command(*words), stdout=full)
        assert done.returncode == 1, done
        assert done.stderr.count("No space left on device") == 1
        assert json.loads((host.folder / "heard").read_text())["exit"] == 1
        (host.folder / "heard").unlink()


def test_who_can_t_see_what_they_are_asked_about_has_not_agreed(host: Host, vera: User) -> None:
    """Row 53. A restore asks at the terminal, and its output goes to a full disk."""
    succeeded(host.t3())
    commit_row(vera)
    before = dump_database(vera.database)
    person, terminal = pty.openpty()
    try:
        os.write(person, b"y\n")
        with open("/dev/full", "w") as full:
            line = host.command("restore", vera.name, "--no-service")
            done = call(host, line, stdin=terminal, stdout=full)
    finally:
        os.close(terminal)
        os.close(person)
    assert (done.returncode, dump_database(vera.database)) == (1, before)


def test_where_no_word_can_be_said_the_exit_code_tells(host: Host, vera: User) -> None:
    """Row 53."""
    with open("/dev/full", "w") as full:
        for words in (["run"], ["run", "--json"], ["list"], ["run", "--keep", "none"]):
            done = call(host, host.command(*words), stdout=full, stderr=full)
            assert done.returncode == (2 if "none" in words else 1), words
    assert len(host.snapshots(vera)) == 1
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as nobody:
        done = call(host, host.command("list"), stdout=nobody)
    assert (done.returncode, done.stderr) == (1, "")  # who has gone wants no word


def call(host: Host, line: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    more = {name: str(options.pop(name)) for name in list(options) if name.startswith("T3_")}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(
        line, env=host.env(**more), cwd=ROOT, text=True, timeout=120, check=False, **streams
    )  # type: ignore[call-overload]
