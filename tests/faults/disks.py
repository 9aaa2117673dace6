"""What the fault tests share: small real disks, runs under strace or a kernel filter, and what must
hold of a store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.account_folders import data_path, listed, strays_of
from support.databases import MIB, commit_row
from support.host import Answer, Host
from support.paths import DATA

from demo.users import User
from t3_backup.history.verify import verify_snapshot
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store
from t3_backup.worker.limits import Limits

REAL = DATA / "state-0.0.24.sqlite"
KILLED = -9

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="faults are put into system calls by strace"
)

_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
_LEAST = {"ext4": 4 * MIB, "xfs": 300 * MIB, "btrfs": 128 * MIB}


def needs_mkfs(kind: str) -> None:
    """Skip the test where that file system can't be made here."""
    if shutil.which(_MAKE[kind][0]) is None:
        pytest.skip(f"{_MAKE[kind][0]} is not installed")


def make_image(image: Path, kind: str, size: int, *options: str) -> None:
    """A sparse file with an empty file system in it."""
    with image.open("wb") as file:
        file.truncate(max(size, _LEAST[kind]))
    subprocess.run([*_MAKE[kind], *options, str(image)], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(what: Path | str, where: Path, *options: str) -> Iterator[Path]:
    """Mount, and unmount whatever happens."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(what), str(where)], check=True, capture_output=True)
    try:
        yield where
    finally:
        if subprocess.run(["umount", str(where)], check=False, capture_output=True).returncode != 0:
            subprocess.run(["umount", "-l", str(where)], check=True)


@contextlib.contextmanager
def disk(folder: Path, kind: str, size: int = 16 * MIB, *options: str) -> Iterator[Path]:
    """A file system of its own, mounted beneath `folder`."""
    where = folder / f"disk-{kind}"
    if kind in ("tmpfs", "ramfs"):
        with mounted(kind, where, "-t", kind, "-o", f"size={size}"):
            yield where
        return
    needs_mkfs(kind)
    image = folder / f"{kind}.img"
    make_image(image, kind, size, *options)
    with mounted(image, where, "-o", "loop"):
        yield where
    image.unlink()


def on(where: Path, host: Host) -> Host:
    """The same host, with its store on another disk."""
    return Host(
        where,
        host.environ
        | {"T3_BACKUP_MAP": str(host.map), "T3_BACKUP_LOG": host.env()["T3_BACKUP_LOG"]},
    )


def fill(where: Path) -> Path:
    """A file that takes all the room there is, to the last block, what the file system gives back
    late included."""
    filler = where / "filler"
    with filler.open("wb", buffering=0) as file:
        size, refused = MIB, 0
        while refused < 3:
            try:
                file.write(b"\xff" * size)
                refused = 0
            except OSError:
                if size == 512:  # half of the smallest block there is
                    refused += 1
                size = max(512, size // 8)
                with contextlib.suppress(OSError):
                    os.fsync(file.fileno())
    return filler


def seed(host: Host, user: User, count: int) -> None:
    """A store with `count` snapshots, and a database that has changed since the last of them."""
    for _ in range(count):
        answer = host.t3("run")
        assert answer.code == 0, answer
        commit_row(user)


def leave_wal(user: User) -> None:
    """Let the newest rows of the user's database, or of the real one, be in a -wal alone, as a
    server that was killed leaves it."""
    work = user.home / "work"
    work.mkdir()
    shutil.copyfile(user.database if user.database.exists() else REAL, work / "state.sqlite")
    connection = sqlite3.connect(work / "state.sqlite", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        for number in range(20):
            connection.execute(f"CREATE TABLE IF NOT EXISTS only_in_wal_{number} (a)")
            connection.execute(f"INSERT INTO only_in_wal_{number} VALUES (1)")
        for ending in ("", "-wal"):
            shutil.copyfile(work / f"state.sqlite{ending}", f"{user.database}{ending}")
            user.give(Path(f"{user.database}{ending}"))
    finally:
        connection.close()
    shutil.rmtree(work)


def source_bytes(user: User) -> dict[str, str]:
    """SHA-256 of the database and its -wal."""
    return {
        e: hashlib.sha256(Path(f"{user.database}{e}").read_bytes()).hexdigest()
        for e in ("", "-wal")
        if Path(f"{user.database}{e}").exists()
    }


def trace_of(host: Host) -> Path:
    """Where strace writes: beside the map, since the store's disk may be full."""
    return Path(host.env()["T3_BACKUP_MAP"]).parent / "strace"


def _strace(host: Host, parent_only: bool) -> list[str]:
    return [
        "strace",
        "-f",
        *(["-b", "execve"] if parent_only else []),
        "-qq",
        "-o",
        str(trace_of(host)),
    ]


def traced(
    host: Host,
    *options: str,
    words: Sequence[str] = ("run",),
    parent_only: bool = False,
    timeout: float = 120,
) -> Answer:
    """A run of the command under strace. `parent_only`: the worker is let go as it is exec'd.
    KILLED where a kill hit."""
    line = [*_strace(host, parent_only), *options, *host.command(*words)]
    done = subprocess.run(
        line, env=host.env(), cwd="/", capture_output=True, text=True, timeout=timeout, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def start_traced(
    host: Host, *options: str, words: Sequence[str] = ("run",), parent_only: bool = False
) -> subprocess.Popen[str]:
    """The same, left running."""
    line = [*_strace(host, parent_only), *options, *host.command(*words)]
    return subprocess.Popen(
        line, env=host.env(), cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def trace_worker(host: Host, *options: str, words: Sequence[str] = ("run",)) -> tuple[Answer, str]:
    """A run whose worker, and nobody else, runs under strace; and the worker's trace.

    The parent takes argv[0] for the interpreter that it starts its workers by. -D keeps the parent
    the worker's parent.
    """
    log, wrapper = trace_of(host), trace_of(host).parent / "python3"
    log.unlink(missing_ok=True)
    wrapper.write_text(
        f'#!/bin/sh\nexec strace -D -qq -o {log} {" ".join(options)} {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    line = [str(wrapper), "-m", "t3_backup", *words]
    done = subprocess.run(
        line,
        executable=sys.executable,
        env=host.env(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Answer(
        done.returncode, done.stdout, done.stderr
    ), log.read_text() if log.exists() else ""


# Put before the command, it makes the kernel refuse one call with one error in everything that is
# started by it.
_REFUSE = """
import os, seccomp, sys
name, position, mask, value, error = sys.argv[1], *map(int, sys.argv[2:6])
calls = seccomp.SyscallFilter(seccomp.ALLOW)
calls.add_rule(seccomp.ERRNO(error), name, seccomp.Arg(position, seccomp.MASKED_EQ, mask, value))
calls.load()
os.execv(sys.argv[6], sys.argv[6:])
"""


def refused(
    host: Host,
    call: str,
    position: int,
    mask: int,
    value: int,
    error: int,
    *,
    words: Sequence[str] = ("run",),
) -> Answer:
    """A run in which the kernel answers `error` to each `call` whose argument `position`, masked,
    is `value`."""
    line = [
        sys.executable,
        "-c",
        _REFUSE,
        call,
        *map(str, (position, mask, value, error)),
        *host.command(*words),
    ]
    done = subprocess.run(
        line, env=host.env(), cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def files(host: Host, user: User) -> dict[str, str]:
    """Every file of a shelf, by its SHA-256; but for the hashes of pages, which are a hint and
    nothing hangs on them."""
    paths = [path for path in names(host, user) if path.suffix != ".pages"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def names(host: Host, user: User) -> list[Path]:
    """All that lies on a shelf."""
    return sorted(host.account_dir(user).iterdir()) if host.account_dir(user).exists() else []


def leftovers(host: Host, user: User) -> set[str]:
    """What lies on a shelf and is no part of a snapshot."""
    found = {path.name for path in names(host, user)}
    whole = {
        path.stem
        for path in names(host, user)
        if {f"{path.stem}.json", f"{path.stem}.sqlite"} <= found
    }
    return found - {
        f"{stem}{ending}" for stem in whole for ending in (".json", ".sqlite", ".pages")
    }


def proven(host: Host, user: User, *, known: frozenset[str] = frozenset()) -> list[Manifest]:
    """The snapshots of a user; each is proven by its hash and, unless its name is `known`, by
    SQLite too."""
    limits = Limits(60, 60, 1 << 30, 0, lambda: 1 << 40)
    with Store.open(host.store) as store:
        account_dir = store.account_dir(user.name)
        if account_dir is None:
            return []
        with account_dir:
            found = listed(account_dir)
            assert strays_of(account_dir) == []
            for snapshot in found:
                path = data_path(account_dir, snapshot)
                assert path.stat().st_size == snapshot.bytes
                assert hashlib.sha256(path.read_bytes()).hexdigest() == snapshot.sha256
                if snapshot.name not in known:
                    check = verify_snapshot(
                        account_dir, account_dir.read_listing(), snapshot, limits, threading.Event()
                    )
                    assert check.verifies, check
            return found


def processes_of(user: User) -> list[int]:
    """Every process of the user that is not dead."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                status = (entry / "status").read_text()
                if (
                    f"\nUid:\t{pwd.getpwnam(user.name).pw_uid}\t" in status
                    and "\nState:\tZ" not in status
                ):
                    found.append(int(entry.name))
    return found


def one_line(answer: Answer, user: User, *words: str) -> str:
    """The one line that tells of the user's failure; it holds each of `words`, and nothing else is
    said but the sum."""
    # On such a disk the ledger may be refused as well, which is said.
    lines = [
        line
        for line in (answer.out + answer.err).splitlines()
        if "attempts.json can't be written" not in line
    ]
    assert len(lines) == 2, answer
    assert lines[0].startswith(f"WARN: backup FAILED for {user.name} ("), answer
    assert "Traceback" not in lines[0]
    for word in words:
        assert word in lines[0], answer
    return lines[0]
