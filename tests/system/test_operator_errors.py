"""What an administrator does without thinking: a sleepy Ctrl-Z, a pipe that closes, an edited map,
a store on its own disk."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import sandbox
from support.databases import commit_row
from support.host import Host
from support.processes import child_pids, process_status, until
from support.users import needs_root

from demo.users import User
from demo.writer import Writer
from t3_backup.settings import load

pytestmark = needs_root


@pytest.fixture
def five(host: Host, make_user: Callable[..., User], small: Path) -> list[User]:
    """Five users with databases, in the map."""
    users = [make_user(f"m-{name}", small) for name in ("ann", "ben", "cyd", "dan", "eve")]
    host.write_map(*users)
    return users


@pytest.mark.skipif(sandbox.ACTIVE, reason="by hand, at a terminal")
def test_ctrl_z_puts_no_run_to_sleep(
    host: Host, make_user: Callable[..., User], grown: Callable[[int], Path]
) -> None:
    """Row 2: asleep, the worker would hold the server's -wal, and nobody would be awake to end it.

    A group of its own in this session, as a shell makes it: in a session of its own the kernel
    passes SIGTSTP over.
    """
    user = make_user("m-ann", grown(100))
    host.write_map(user)
    with Writer(user.database, user=user.name):
        run = subprocess.Popen(
            host.command("run"),
            env=host.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        # From the first moment at which there is something of it to put to sleep, and again and
        # again.
        try:
            while run.poll() is None:
                if host.account_dir(user).exists():
                    os.killpg(run.pid, signal.SIGTSTP)
                assert process_status(run.pid)["State"][0] != "T"
        finally:
            run.kill()
        out, _ = run.communicate()
    assert run.returncode == 0, out
    assert "verified" in out


def test_who_no_longer_listens_costs_nobody_a_backup(host: Host, five: list[User]) -> None:
    """Row 20: a full disk under a redirected output, and a pipe that is closed: all are backed up,
    and the exit code says it."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            host.command("run"),
            env=host.env(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1, done
    assert [len(host.snapshots(user)) for user in five] == [1] * 5
    commit_row(*five)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        host.command("run"),
        env=host.env(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert [len(host.snapshots(user)) for user in five] == [2] * 5


@pytest.mark.parametrize("words", [["run"], ["list"], ["verify"]])
def test_a_document_that_nobody_takes_is_one_line_and_exit_code_1(
    host: Host, alice: User, words: list[str]
) -> None:
    """Row 20."""
    assert host.t3().code == 0
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            host.command(*words, "--json"),
            env=host.env(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1] == "t3-backup-state: No space left on device"
    assert "Exception" not in done.stderr


def test_a_snapshot_that_cannot_be_pruned_is_a_warning_beside_a_good_backup(
    host: Host, alice: User
) -> None:
    """Row 13: what was taken is there, what should go is told of, and nothing else goes in its
    place."""
    for _ in range(2):
        assert host.t3().code == 0
        commit_row(alice)
    oldest = Path(host.t3("list", "--json").account(alice.name)["snapshots"][-1]["path"])
    oldest.unlink()
    oldest.mkdir()
    answer = host.t3("run", "--keep", "1", "--json")
    assert answer.code == 0, answer
    assert f"WARN: {alice.name}: {oldest.stem} can't be pruned: Is a directory" in answer.err
    assert answer.account(alice.name)["outcome"] == "backed_up"
    assert answer.account(alice.name)["snapshots"][0]["verdict"] == "verified"
    assert answer.account(alice.name)["pruned"] == []
    assert len(host.snapshots(alice)) == 3


def test_a_name_that_the_locale_cannot_say_stops_nothing(host: Host, five: list[User]) -> None:
    """A table of a user's own naming gets into a warning."""
    script = "PRAGMA journal_mode=delete; CREATE TABLE 表(p REFERENCES projection_threads(thread_id)); INSERT INTO 表 VALUES ('no');"
    subprocess.run(
        ["sqlite3", str(five[0].database), script],
        user=five[0].name,
        group=five[0].name,
        check=True,
        extra_groups=[],
    )
    answer = host.t3("run", PYTHONIOENCODING="latin-1")
    assert answer.code == 1, answer
    assert "Traceback" not in answer.err
    assert "rows without a parent in \\u8868" in answer.out
    assert [len(host.snapshots(user)) for user in five[1:]] == [1] * 4


def test_an_account_that_fell_out_of_the_map_is_told_of(host: Host, five: list[User]) -> None:
    """Row 20: nobody backs it up any more, and nobody would notice."""
    assert host.t3().code == 0
    host.write_map(*five[1:])
    answer = host.t3()
    assert (
        f"WARN: {five[0].name} has snapshots in {host.store}, but is not in {host.map}"
        in answer.out
    )
    assert answer.code == 0
    host.map.write_text("# all gone\n")
    assert host.t3().code == 1
    assert host.t3("run", "--user", five[0].name).code == 0


def test_a_store_on_a_disk_of_its_own_has_a_lost_and_found(host: Host, alice: User) -> None:
    assert host.t3().code == 0
    (host.store / "lost+found").mkdir(mode=0o700)
    (host.store / ".snapshots").mkdir(mode=0o755)
    for words in (["run"], ["list"], ["verify"]):
        answer = host.t3(*words)
        assert (answer.code, "lost+found" in answer.out) == (0, False), answer


def test_a_store_behind_a_symlinked_folder_works_at_once(host: Host, alice: User) -> None:
    (host.folder / "disk").mkdir()
    (host.folder / "backups").symlink_to(host.folder / "disk")
    assert host.t3("run", "--dest", str(host.folder / "backups" / "t3")).code == 0
    assert len(list((host.folder / "disk" / "t3" / alice.name).glob("*.sqlite"))) == 1


def test_verify_calls_verified_what_was_good_and_nothing_else(
    host: Host, alice: User, grown: Callable[[int], Path]
) -> None:
    """Row 34: the runbook goes on only where the line begins with `verified`."""
    assert host.t3().code == 0
    script = "DELETE FROM orchestration_events; DELETE FROM orchestration_command_receipts; DELETE FROM projection_thread_activities;"
    subprocess.run(
        ["sqlite3", str(alice.database), script],
        user=alice.name,
        group=alice.name,
        check=True,
        extra_groups=[],
    )
    assert host.t3().code == 1
    answer = host.t3("verify")
    first, second = answer.out.splitlines()
    assert first.startswith(f"unchanged {alice.name} ")
    assert "suspect when it was taken" in first
    assert second.startswith(f"verified {alice.name} ")
    assert answer.code == 0


def test_a_verify_that_is_stopped_accuses_no_snapshot(
    host: Host, make_user: Callable[..., User], grown: Callable[[int], Path]
) -> None:
    user = make_user("m-ann", grown(100))
    host.write_map(user)
    for _ in range(3):
        commit_row(user)
        assert host.t3().code == 0
    verify = host.start("verify")
    assert verify.stdout is not None
    first = verify.stdout.readline()
    until(lambda: child_pids(verify.pid), "worker at the second one")
    verify.send_signal(signal.SIGINT)
    rest, _ = verify.communicate(timeout=60)
    assert first.startswith("verified ")
    assert "NOT" not in rest
    # systemd-run has a code of its own for it
    assert sandbox.ACTIVE or verify.returncode == -signal.SIGINT


def test_a_proof_of_everything_lets_the_timers_run_in(
    host: Host, make_user: Callable[..., User], grown: Callable[[int], Path]
) -> None:
    """Row 33: `verify` holds the store for one snapshot at a time."""
    user = make_user("m-ann", grown(100))
    host.write_map(user)
    for _ in range(4):
        assert host.t3("run", "--keep", "4").code == 0
        commit_row(user)
    verify = host.start("verify")
    assert verify.stdout is not None
    verify.stdout.readline()
    answer = host.t3("run", "--keep", "5")
    assert answer.code == 0, answer
    # The run had its turn while there was still something to prove, and the proof went on after it.
    assert verify.poll() is None
    rest, _ = verify.communicate(timeout=120)
    assert verify.returncode == 0, rest
    assert rest.count("verified ") == 3


@pytest.mark.parametrize(
    ("accounts", "jobs", "seconds"), [(1, 1, 20), (5, 1, 60), (5, 2, 40), (0, 1, 10)]
)
def test_slow_accounts_alone_never_use_up_the_time_of_a_run(
    accounts: int, jobs: int, seconds: int
) -> None:
    """Row 22: each may take its whole time, and the last one is begun all the same."""
    values = load({"timeout": "10", "jobs": str(jobs)}, {}, Path("/nonexistent"))
    assert values.run_timeout(accounts) == seconds
