"""Row 19: the disk fills, of the store or of the home, before a run or in the middle of one. Real
small disks, really full."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.databases import MIB, REAL, give_database, make_snapshots
from support.fault_injection import needs_strace, start_traced, trace_of
from support.filesystems import disk, fill_disk, host_on
from support.host import Answer, Host, succeeded
from support.store_checks import failure_line, find_leftovers, hash_files, prove_snapshots
from support.users import needs_root

from demo.users import User, run_alone

pytestmark = needs_root

RESERVE = "T3_BACKUP_RESERVE"


@pytest.fixture(params=["ext4", "xfs"])
def full(request: pytest.FixtureRequest, host: Host) -> Iterator[Host]:
    """The host with its store on a small disk and no reserve."""
    with disk(host.folder, request.param) as where:
        there = host_on(where, host)
        there.environ[RESERVE] = "0"
        yield there


@pytest.fixture
def carol(make_user: Callable[..., User], host: Host) -> User:
    """A user with the real database, 276 KiB."""
    user = make_user("flt-carol", REAL)
    host.write_map(user)
    return user


def blocks_used(where: Path) -> int:
    """Blocks in use, once what was deleted has been given back."""
    os.sync()
    status = os.statvfs(where)
    return status.f_blocks - status.f_bfree


def stopped_at(
    host: Host, *inject: str, parent_only: bool = False
) -> tuple[subprocess.Popen[str], int]:
    """A run under strace that stops itself (SIGSTOP) at a call; the run, and the process that has
    stopped."""
    process = start_traced(host, *inject, parent_only=parent_only)
    log = trace_of(host)
    while process.poll() is None:
        for line in log.read_text().splitlines() if log.exists() else []:
            if "--- stopped by SIGSTOP ---" in line:
                return process, int(line.split()[0])
        select.select([], [], [], 0.01)
    pytest.fail(f"the run ended without a stop: {process.communicate()[0]}")


def go_on(process: subprocess.Popen[str], stopped: int) -> Answer:
    """Let it run to its end."""
    os.kill(stopped, signal.SIGCONT)
    out, _ = process.communicate(timeout=60)
    return Answer(process.returncode, out, "")


def test_a_copy_that_would_not_fit_is_refused_before_its_first_byte(
    full: Host, carol: User
) -> None:
    """Row 19: free space is compared with the copy and the reserve, and one line says all three."""
    make_snapshots(full, carol, 2)
    before = hash_files(full, carol)
    free = os.statvfs(full.folder).f_bavail * os.statvfs(full.folder).f_frsize
    answer = full.t3("run", **{RESERVE: str(free - REAL.stat().st_size // 2)})
    assert answer.code == 1
    failure_line(answer, carol, "no room", f"needs {carol.database.stat().st_size} bytes", RESERVE)
    assert hash_files(full, carol) == before
    assert len(prove_snapshots(full, carol)) == 2
    assert full.t3("run", **{RESERVE: str(free - 3 * REAL.stat().st_size)}).code == 0
    assert len(prove_snapshots(full, carol)) == 3


def test_the_wal_counts_as_part_of_the_copy(full: Host, carol: User) -> None:
    """Row 19: the rows of a large -wal need room too."""
    wal = Path(f"{carol.database}-wal")
    with wal.open("wb") as file:
        file.truncate(8 * MIB)
    carol.give(wal)
    free = os.statvfs(full.folder).f_bavail * os.statvfs(full.folder).f_frsize
    answer = full.t3("run", **{RESERVE: str(free - 8 * MIB)})
    assert answer.code == 1
    failure_line(answer, carol, "no room", f"needs {REAL.stat().st_size + 8 * MIB} bytes")


@pytest.mark.parametrize(("kind", "options"), [("ext4", ("-m", "0")), ("xfs", ())])
def test_a_disk_without_a_free_block_is_given_room_by_what_is_to_go_anyway(
    host: Host, carol: User, kind: str, options: tuple[str, ...]
) -> None:
    """Row 19: what retention lets go of goes first, then. On xfs not even a file without a name
    can be begun."""
    with disk(host.folder, kind, 16 * MIB, *options) as where:
        full = host_on(where, host)
        full.environ |= {RESERVE: "0", "T3_BACKUP_COMPACT": "off"}
        make_snapshots(full, carol, 6)
        kept = [path.name for path in sorted(full.account_dir(carol).glob("*.sqlite"))]
        fill_disk(full.folder)
        before = hash_files(full, carol)
        refused = full.t3("run", T3_BACKUP_KEEP="6")
        assert refused.code == 1, refused
        failure_line(refused, carol, "no room")
        assert hash_files(full, carol) == before, "all of them are to stay"
        answer = full.t3("run", T3_BACKUP_KEEP="2", T3_BACKUP_KEEP_DAILY="1")
        assert answer.code == 0, answer
        assert len(prove_snapshots(full, carol)) == 2
        assert set(kept[:4]).isdisjoint(path.name for path in full.account_dir(carol).iterdir())


@needs_strace
def test_a_disk_that_fills_while_the_copy_is_written_costs_that_copy_alone(
    full: Host, carol: User
) -> None:
    """Row 19: the check passed, then somebody took the room: ENOSPC in the worker's write of the
    copy."""
    make_snapshots(full, carol, 2)
    before, used = hash_files(full, carol), blocks_used(full.folder)
    # Eight small writes make the user's -shm. The stop comes after the last of them; the copy is
    # what is written next.
    process, stopped = stopped_at(
        full, "-e", "trace=pwrite64", "-e", "inject=pwrite64:signal=STOP:when=8"
    )
    filler = fill_disk(full.folder)
    answer = go_on(process, stopped)
    assert answer.code == 1, answer
    failure_line(answer, carol, "No space left on device", "snapshot")
    _unharmed(full, carol, before, filler, used)


@needs_strace
def test_a_disk_that_fills_while_the_snapshot_is_sealed_costs_that_snapshot_alone(
    full: Host, carol: User
) -> None:
    """Row 19: the proven copy is on the disk, its manifest has no room: nothing is named."""
    make_snapshots(full, carol, 2)
    before, used = hash_files(full, carol), blocks_used(full.folder)
    process, stopped = stopped_at(
        full, "-e", "trace=fsync", "-e", "inject=fsync:signal=STOP:when=2", parent_only=True
    )
    filler = fill_disk(full.folder)
    answer = go_on(process, stopped)
    assert answer.code == 1, answer
    failure_line(answer, carol, "No space left on device")
    _unharmed(full, carol, before, filler, used)


def _unharmed(full: Host, user: User, before: dict[str, str], filler: Path, used: int) -> None:
    """Only our own unnamed file went; with room back the next run works."""
    assert hash_files(full, user) == before
    assert len(prove_snapshots(full, user)) == len(before) // 2
    assert full.t3("run").code == 1, "the disk is still full"
    assert hash_files(full, user) == before
    filler.unlink()
    # A disk of the kind may keep a block or two more of its own.
    assert blocks_used(full.folder) <= used + 64 * 1024 // os.statvfs(full.folder).f_frsize
    assert full.t3("run").code == 0
    assert len(prove_snapshots(full, user)) == len(before) // 2 + 1
    assert find_leftovers(full, user) == set()


@pytest.mark.parametrize("spare", [0, 1])
def test_a_disk_without_inodes_names_nothing(host: Host, carol: User, spare: int) -> None:
    """Row 19: none for the copy, or one for the copy and none for its manifest."""
    with disk(host.folder, "ext4", 16 * MIB, "-N", "32") as where:
        full = host_on(where, host)
        full.environ[RESERVE] = "0"
        make_snapshots(full, carol, 2)
        before = hash_files(full, carol)
        taken = [where / f"inode-{n}" for n in range(os.statvfs(where).f_ffree - spare)]
        assert taken
        for path in taken:
            path.touch()
        answer = full.t3("run")
        assert answer.code == 1, answer
        failure_line(answer, carol, "No space left on device")
        assert hash_files(full, carol) == before
        assert len(prove_snapshots(full, carol)) == 2
        for path in taken:
            path.unlink()
        assert full.t3("run").code == 0
        assert len(prove_snapshots(full, carol)) == 3


def test_a_full_disk_costs_nothing_that_retention_keeps_and_lists_and_verifies(
    full: Host, carol: User
) -> None:
    """Row 19: making room by giving up an old snapshot is nobody's job but retention's."""
    make_snapshots(full, carol, 3)
    before = hash_files(full, carol)
    fill_disk(full.folder)
    answer = full.t3("run", "--keep", "3")
    assert answer.code == 1, answer
    assert hash_files(full, carol) == before
    assert full.t3("list", carol.name).code == 0
    assert full.t3("verify", carol.name).code == 0


def test_what_retention_lets_go_makes_room_for_the_next_one(full: Host, carol: User) -> None:
    """Row 19: it would go after the run anyway; what is to stay doesn't go for it, and the newest
    verified one never does."""
    make_snapshots(full, carol, 3)
    snapshots = prove_snapshots(full, carol)
    before = [snapshot.name for snapshot in snapshots]
    status, size = os.statvfs(full.folder), carol.database.stat().st_size
    free = status.f_bavail * status.f_frsize
    # more than there is to gain
    answer = full.t3("run", "--keep", "1", **{RESERVE: str(free + 10 * size)})
    assert answer.code == 1, answer
    assert [snapshot.name for snapshot in prove_snapshots(full, carol)] == before[:1]
    assert re.findall(rf"^pruned {carol.name}: (\S+)$", answer.out, re.MULTILINE) == before[:0:-1]
    # which two of three that went have made room for
    answer = full.t3("run", "--keep", "1", **{RESERVE: str(free)})
    assert answer.code == 0, answer
    [new] = prove_snapshots(full, carol)
    # it may have the name of one that went in this very second
    assert new.sequence > snapshots[0].sequence


def test_a_full_home_is_backed_up_as_it_is_and_named(
    make_user: Callable[..., User], host: Host, carol: User
) -> None:
    """Row 19: SQLite can't make its -shm beside the database; the database is read without one."""
    with disk(host.folder, "ext4", 4 * MIB) as where:
        where.chmod(0o755)
        dave = make_user("flt-dave")
        home = where / "dave"
        subprocess.run(["mv", dave.home, home], check=True)
        run_alone("usermod", "--home", str(home), dave.name)
        dave = User(dave.name, dave.uid, dave.gid, home)
        give_database(dave, REAL)
        host.write_map(dave, carol)
        filler = fill_disk(where)
        answer = succeeded(host.t3("run"))
        [line] = [
            line for line in answer.out.splitlines() if "the disk of the home is full" in line
        ]
        assert dave.name in line, line
        print(line)
        assert len(host.snapshots(carol)) == 1
        assert len(host.snapshots(dave)) == 1
        assert dave.database.read_bytes() == REAL.read_bytes()
        filler.unlink()
        assert host.t3("run").code == 0
        assert len(host.snapshots(dave)) == 1
