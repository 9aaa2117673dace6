"""The log of a run: one line for each account, whole through every rotation, and no backup depends
on it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.databases import commit_row, give_database
from support.host import Answer, Host
from support.paths import DATA, ROOT
from support.processes import BOUND_S, until
from support.users import needs_root

import t3_backup
from demo.users import User
from t3_backup.backup.result import AccountResult
from t3_backup.output import logfile

pytestmark = needs_root

TINY = DATA / "state-0.0.24.sqlite"


@pytest.fixture
def lars(make_user: Callable[..., User], host: Host) -> User:
    """Who has a database; the map names them."""
    user = make_user("log-lars", TINY)
    host.write_map(user)
    return user


@pytest.fixture
def mia(make_user: Callable[..., User], host: Host, lars: User) -> User:
    """Who has none; the map names both."""
    user = make_user("log-mia")
    host.write_map(lars, user)
    return user


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def backed_up(answer: Answer, user: User) -> bool:
    return f"backed up {user.name} -> " in answer.out


def test_each_account_and_run_has_a_line_with_all_that_the_run_said(
    host: Host, lars: User, mia: User
) -> None:
    first = host.t3("run", "--json", "--label", "prebump-1")
    second = host.t3("run", "--json", "--user", lars.name, "--user", "nobody-of-that-name")
    assert (first.code, second.code) == (0, 1), (first, second)
    lines = logged(host.folder / "log")
    assert [(line["user"], line["outcome"]) for line in lines] == [
        (lars.name, "backed_up"),
        (mia.name, "skipped"),
        ("nobody-of-that-name", "failed"),
        (lars.name, "backed_up"),
    ]
    runs = [line["run"] for line in lines]
    assert runs[0] == runs[1] != runs[2] == runs[3]
    assert all(re.fullmatch(r"[0-9a-f]{32}", run) for run in runs)
    assert {line["version"] for line in lines} == {t3_backup.__version__}
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["time"])
    for line, told in (
        (lines[0], first.account(lars.name)),
        (lines[1], first.account(mia.name)),
        (lines[3], second.account(lars.name)),
    ):
        for key in ("user", "outcome", "reason", "pruned", "warnings", "taken_over"):
            assert line[key] == told[key]
        keys = (
            "name",
            "path",
            "bytes",
            "verdict",
            "method",
            "copy_seconds",
            "proof_seconds",
            "label",
            "reasons",
            "missing",
        )
        assert line["snapshots"] == [
            {key: snapshot[key] for key in keys} for snapshot in told["snapshots"]
        ]
    assert lines[0]["snapshots"][0]["label"] == "prebump-1"
    assert "no such user" in lines[2]["reason"]


def test_a_new_log_is_closed_to_all_but_its_group_and_an_old_one_keeps_its_mode(
    host: Host, lars: User
) -> None:
    file = host.folder / "log"
    assert host.t3().code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    file.chmod(0o600)
    assert host.t3().code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(logged(file)) == 2


def test_a_rotation_between_two_accounts_costs_neither_its_line(
    host: Host, lars: User, mia: User, grown: Callable[[int], Path]
) -> None:
    """logrotate moves the file away, and makes the new one, while a run goes on."""
    give_database(mia, grown(100))
    file, old = host.folder / "log", host.folder / "log.1"
    with host.start("run") as process:
        until(lambda: file.exists() and file.read_text(), "first line of the log")
        file.rename(old)
        file.touch(0o640)
        assert process.wait(BOUND_S) == 0
    assert [line["user"] for line in logged(old)] == [lars.name]
    assert [line["user"] for line in logged(file)] == [mia.name]


def test_a_log_that_can_t_be_written_is_said_once_makes_the_code_1_and_costs_no_backup(
    host: Host, lars: User, mia: User, small: Path
) -> None:
    give_database(mia, small)
    file = host.folder / "log"
    (host.folder / "real").touch()
    for trouble, why in (
        (file.mkdir, "Is a directory"),
        (lambda: file.symlink_to(host.folder / "real"), "symbolic links"),
        (lambda: os.mkfifo(file), "No such device or address"),
    ):
        trouble()
        commit_row(lars, mia)
        answer = host.t3("run")
        assert answer.code == 1, answer
        assert backed_up(answer, lars) and backed_up(answer, mia), answer
        assert answer.out.count("WARN") == 1, answer
        assert f"WARN: the log {file} can't be written: " in answer.out
        assert why in answer.out
        assert answer.out.endswith("done (2 accounts, 0 not well)\n")
        file.rmdir() if file.is_dir() else file.unlink()
    assert (host.folder / "real").read_text() == ""


def test_a_log_in_a_folder_that_is_not_there_is_said(host: Host, lars: User) -> None:
    answer = host.t3("run", T3_BACKUP_LOG=str(host.folder / "none" / "log"))
    assert answer.code == 1, answer
    assert backed_up(answer, lars)
    assert (
        f"WARN: the log {host.folder}/none/log can't be written: No such file or directory"
        in answer.out
    )
    assert not (host.folder / "none").exists()


def in_own_namespace(host: Host, script: str, *words: str) -> Answer:
    """The command, after `script` has changed what is mounted, for it alone."""
    environ = host.env()
    del environ["T3_BACKUP_LOG"]
    line = ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *host.command(*words)]
    return Answer.of(line, environ)


def test_the_default_log_is_written_where_its_folder_is_and_missed_by_nobody_where_not(
    host: Host, lars: User
) -> None:
    """In a mount namespace of its own, with a /var/log of its own."""
    private = f"mkdir -p {host.folder}/var-log; mount --bind {host.folder}/var-log /var/log"
    answer = in_own_namespace(host, private, "run")
    assert answer.code == 0, answer
    assert "WARN" not in answer.out + answer.err
    assert os.listdir(host.folder / "var-log") == []
    (host.folder / "var-log" / "t3-backup").mkdir()
    assert in_own_namespace(host, private, "run").code == 0
    [line] = logged(host.folder / "var-log" / "t3-backup" / "t3-backup-state.log")
    assert line["user"] == lars.name


def test_a_full_disk_leaves_no_half_of_a_line(host: Host) -> None:
    """The next object would be glued to it, and lost as well."""
    where = host.folder / "full"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(where)], check=True)
    try:
        one = logfile.Log(where / "log", "run")
        result = AccountResult("lars", "failed", "x" * 3000)
        said = [one.finished(result) for _ in range(30)]
        assert said.count(None) < 30
        assert [text for text in said if text] == [
            f"the log {where / 'log'} can't be written: No space left on device"
        ]
        assert one.broken
        assert len(logged(where / "log")) == said.index(next(text for text in said if text))
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_a_dry_run_and_somebody_who_is_not_root_write_none(host: Host, lars: User) -> None:
    assert host.t3("run", "--dry-run").code == 0
    environ = host.env(
        T3_BACKUP_DEST=str(lars.home / "backups"), T3_BACKUP_LOG=str(lars.home / "log")
    )
    done = subprocess.run(
        host.command("run"),
        env=environ,
        cwd=ROOT,
        user=lars.uid,
        group=lars.gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    assert not (host.folder / "log").exists()
    assert not (lars.home / "log").exists()


def test_what_a_user_chose_stays_within_its_line(tmp_path: Path) -> None:
    reason = "a\n{}\u2028b\x1b[31m\ud800"
    assert (
        logfile.Log(tmp_path / "log", "run").finished(AccountResult("eve", "failed", reason))
        is None
    )
    raw = (tmp_path / "log").read_bytes()
    assert raw.count(b"\n") == 1
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert json.loads(raw)["reason"] == reason


def test_the_run_that_systemd_started_has_its_invocation_s_id() -> None:
    """And no other has: the id is inherited by all that a service starts."""
    mine = {"INVOCATION_ID": "f" * 32, "SYSTEMD_EXEC_PID": str(os.getpid())}
    assert logfile.run_id(mine) == "f" * 32
    assert logfile.run_id(mine | {"SYSTEMD_EXEC_PID": "1"}) != "f" * 32
    assert logfile.run_id({"INVOCATION_ID": "f" * 32}) != "f" * 32
    assert len({logfile.run_id({}) for _ in range(100)}) == 100


# --- the status that systemd shows


def notified(host: Host, stop: bool = False) -> tuple[int, list[str]]:
    """The exit code of a run that has a NOTIFY_SOCKET, and every datagram that came; `stop` ends it
    once it copies."""
    path = host.folder / "notify"
    path.unlink(missing_ok=True)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(0.05)
        path.chmod(0o777)
        heard: list[str] = []
        with host.start("run", NOTIFY_SOCKET=str(path)) as process:
            end, ended = time.monotonic() + BOUND_S, False
            while time.monotonic() < end:
                try:
                    heard.append(systemd.recv(4096).decode())
                except TimeoutError:
                    if ended:  # before it was found that nothing is left
                        return process.returncode, heard
                    ended = process.poll() is not None
                if stop and any(": start" in one for one in heard):
                    process.terminate()
                    stop = False
            process.kill()
            raise AssertionError(f"no end of the run in {BOUND_S} s: {heard}")


def test_systemd_is_told_whom_the_run_copies_and_what_came_of_it(
    host: Host, lars: User, mia: User
) -> None:
    pytest.importorskip("systemd.daemon")
    code, heard = notified(host)
    assert code == 0
    assert heard[0] == f"STATUS={lars.name}: start; 0 of 2 accounts done"
    assert re.fullmatch(
        r"STATUS=done: 2 accounts, 0 not well \(\d{4}-\d\d-\d\d \d\d:\d\d UTC\)", heard[-1]
    )


def test_a_stop_is_told_and_a_run_that_could_not_begin_too(
    host: Host, lars: User, grown: Callable[[int], Path]
) -> None:
    pytest.importorskip("systemd.daemon")
    give_database(lars, grown(300))
    code, heard = notified(host, stop=True)
    assert code == -signal.SIGTERM
    assert "STOPPING=1\nSTATUS=stopping" in heard
    assert heard[-1].startswith("STATUS=done: 1 accounts, 1 not well (")
    host.map.unlink()
    code, heard = notified(host)
    assert code == 2
    assert heard == [
        f"STATUS=not done: user map {host.map}: No such file or directory; name another by --map or T3_BACKUP_MAP"
    ]
