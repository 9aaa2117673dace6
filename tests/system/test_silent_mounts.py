"""A user mounts a file system that never answers: over their home, over T3's folder, over one file.

It is a real FUSE file system, for everybody (`allow_other`), whose server takes each request and
answers none: who asks it for anything sleeps past SIGKILL. Nothing may wait for it but a worker.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.fault_injection import needs_strace
from support.filesystems import never_answering
from support.host import Answer, Host, started, succeeded
from support.live_database import paused_restore
from support.paths import ROOT
from support.processes import processes_of, run_within, until
from support.root_trace import OPTIONS, touched
from support.sampling import is_soak
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

BOUND_S = 60  # for what must not hang
QUICK = {"T3_BACKUP_STALL": "4"}  # a worker's, with nothing heard of it; 5 s are silence
PLACES: dict[str, Callable[[User], Path]] = {
    "home": lambda user: user.home,
    "userdata": lambda user: user.database.parent,
    "attachments": lambda user: user.database.with_name("attachments"),
    "one file": lambda user: user.database,
    "its -wal": lambda user: user.database.with_name("state.sqlite-wal"),
}


ONE = "userdata"  # of all of which the others are tried in a soak


def t3(host: Host, *words: str, **more: str) -> Answer:
    """Call the command, which must end."""
    done = run_within(BOUND_S, host.command(*words), host.env(**QUICK, **more), ROOT)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def mallory(make_user: Callable[..., User], small: Path) -> User:
    user = make_user("amallory", small)  # the first in order
    user.database.with_name("state.sqlite-wal").touch()
    user.give(user.database.with_name("state.sqlite-wal"))
    user.database.with_name("attachments").mkdir()
    user.give(user.database.with_name("attachments"))
    return user


@pytest.fixture
def molly(make_user: Callable[..., User], small: Path) -> User:
    return make_user("amolly", small)  # the second


@pytest.fixture
def honest(make_user: Callable[..., User], small: Path) -> User:
    return make_user("honest", small)


@needs_strace
def test_root_asks_no_file_of_a_users_for_anything(host: Host, mallory: User) -> None:
    """Row 64. No path beneath a home, and no descriptor of such, is touched by any process before
    it has become the user, whatever is typed."""
    host.write_map(mallory)
    for words in (
        ("run",),
        ("run", "--label", "again", "--json"),
        ("run", "--dry-run"),
        ("verify", "--all"),
        ("status",),
        ("doctor",),
        ("list",),
        ("restore", mallory.name, "--yes", "--no-service"),
    ):
        trace = host.folder / f"trace-{words[0]}"
        line = ["strace", "-f", "--seccomp-bpf", "-qq", *OPTIONS, "-o", str(trace)]
        done = run_within(BOUND_S, [*line, *host.command(*words)], host.env(), ROOT)
        assert done.returncode in (0, 1), done
        assert touched(trace, mallory.home) == [], words
        if words[0] in ("run", "doctor", "restore"):
            assert touched(trace, mallory.home, by_user=True), "the worker was not seen"


@pytest.mark.parametrize(
    "place",
    [*(pytest.param(one, marks=pytest.mark.soak) for one in PLACES if one != ONE), ONE],
)
def test_a_mount_that_never_answers_fails_its_account_alone(
    host: Host, mallory: User, honest: User, place: str
) -> None:
    """Row 64. Not the run hangs, nor what is typed meanwhile about others; and the next run leaves
    no second worker behind."""
    host.write_map(mallory, honest)
    succeeded(t3(host, "run"))
    with never_answering(PLACES[place](mallory), mallory.uid):
        answer = t3(host, "run", "--label", "during")
        assert answer.code == 1, answer
        assert f"backup FAILED for {mallory.name} (" in answer.out
        assert f"backed up {honest.name} -> " in answer.out
        assert "can't be ended while what is mounted there (fuse) does not answer" in answer.out
        mend = f"next: umount -f -l {PLACES[place](mallory)}"
        assert mend in answer.out
        left = processes_of(mallory)
        assert len(left) == 1
        if is_soak():  # it is waited for, in case it only ends late
            again = t3(host, "run")
            assert "a worker of an earlier command can't be ended" in again.out
            assert processes_of(mallory) == left
        assert mend in t3(host, "status").out
        succeeded(t3(host, "restore", honest.name, "--yes", "--no-service"))
    until(lambda: not processes_of(mallory), "end of what was left behind")
    mallory.database.with_name("state.sqlite-wal").unlink(missing_ok=True)
    succeeded(t3(host, "run"))
    assert [name for name in os.listdir(host.store) if name.endswith("+worker")] == []


@pytest.mark.soak
@pytest.mark.parametrize("place", PLACES)
def test_no_command_waits_for_a_mount_that_never_answers(
    host: Host, mallory: User, honest: User, place: str
) -> None:
    """Row 64."""
    host.write_map(mallory, honest)
    succeeded(t3(host, "run"))
    with never_answering(PLACES[place](mallory), mallory.uid):
        for words in (("status",), ("list",), ("verify", "--all"), ("run", "--dry-run")):
            t3(host, *words)
        assert f"account {honest.name}" in t3(host, "doctor").out
        assert t3(host, "restore", mallory.name, "--yes", "--no-service").code == 1


@pytest.mark.soak
def test_an_interrupted_restore_in_a_home_that_never_answers_keeps_no_run_waiting(
    host: Host, mallory: User, honest: User
) -> None:
    """Row 64. The run would end it first; each step of a restore may take as long as an account."""
    host.write_map(mallory, honest)
    succeeded(t3(host, "run"))
    with paused_restore(host, mallory) as process:
        process.kill()
        process.wait()
    with never_answering(mallory.home, mallory.uid):
        answer = t3(host, "run", "--label", "during")
        assert f"backed up {honest.name} -> " in answer.out
        left = processes_of(mallory)
        assert len(left) == 1
        assert f"backed up {honest.name} -> " in t3(host, "run", "--label", "again").out
        assert processes_of(mallory) == left
    until(lambda: not processes_of(mallory), "end of what was left behind")
    succeeded(t3(host, "run"))
    assert [name for name in os.listdir(host.store) if "+restore" in name] == []


def test_an_account_whose_home_is_silent_keeps_no_other_waiting(
    host: Host, mallory: User, molly: User, honest: User
) -> None:
    """Row 64. One account at a time, and the first two wait for their homes as long as they may: of
    those that take long, one alone would let the next begin."""
    host.write_map(mallory, molly, honest)
    with ExitStack() as mounts:
        for user in (mallory, molly):
            mounts.enter_context(never_answering(user.home, user.uid))
        with started(host, "run", T3_BACKUP_STALL="600") as run:
            until(lambda: host.snapshots(honest), "backup of the other account")
            assert run.poll() is None
            mounts.close()
            out, _ = run.communicate(timeout=BOUND_S)
    for user in (mallory, molly):
        assert f"backup FAILED for {user.name} (" in out
