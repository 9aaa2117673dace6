"""Row 29, and 28: the disk says no, or lies, or loses its power. Nothing is named that isn't on it.

strace lets the n-th call of a name fail. The failing disk is a real one: an ext4 whose free blocks
have nothing behind them, so that write-back, long after a write that succeeded, ends with an error
of the kernel's.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import select
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.databases import MIB, REAL, commit_row, make_snapshots
from support.fault_injection import needs_strace, run_traced, trace_worker
from support.filesystems import disk, host_on, make_image, mounted, needs_mkfs
from support.host import Answer, Host
from support.sampling import amount, sample
from support.store_checks import failure_line, find_leftovers, hash_files, prove_snapshots
from support.users import needs_root

from demo.users import User
from t3_backup.errors import WorkerLost
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store

pytestmark = [needs_root, needs_strace]

ERRORS = sample(["EIO", "ENOSPC"], 2, "errors of a disk")
SAID = {error: os.strerror(getattr(errno, error)) for error in ERRORS}
BLOCK = 4096


@pytest.fixture
def erin(make_user: Callable[..., User], host: Host) -> User:
    """A user with the real database, which has changed since the newer of two snapshots of it."""
    user = make_user("flt-erin", REAL)
    host.write_map(user)
    make_snapshots(host, user, 2)
    return user


def must_name_nothing(
    host: Host, user: User, before: dict[str, str], answer: Answer, *words: str
) -> None:
    """Exit 1, one line, and the store is as it was; the next run works."""
    assert answer.code == 1, answer
    failure_line(answer, user, *words)
    assert hash_files(host, user) == before
    assert host.t3("run").code == 0
    assert len(prove_snapshots(host, user)) == len(before) // 2 + 1


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("call", "n"),
    [
        pytest.param("fsync", 1, id="the data's fsync"),
        pytest.param("fsync", 2, id="the manifest's fsync"),
        pytest.param("fsync", 3, id="the directory's fsync after the manifest's name"),
        pytest.param("fsync", 4, id="the directory's fsync after the data's name"),
        pytest.param("linkat", 1, id="the manifest's name"),
        pytest.param("linkat", 2, id="the data's name"),
    ],
)
def test_a_failure_of_the_parents_calls_names_nothing(
    host: Host, erin: User, call: str, n: int, error: str
) -> None:
    """Row 29: what was named before the failure, the data itself included, has no name
    afterwards."""
    before = hash_files(host, erin)
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={n}")
    must_name_nothing(host, erin, before, run_traced(host, *inject, parent_only=True), SAID[error])


@pytest.mark.parametrize("error", ERRORS)
def test_a_disk_that_fails_for_good_leaves_at_most_a_manifest_for_the_next_run(
    host: Host, erin: User, error: str
) -> None:
    """Row 29: the directory's fsync fails after the data's link, and fails again while the link is
    undone."""
    before = hash_files(host, erin)
    inject = ("-e", "trace=fsync", "-e", f"inject=fsync:error={error}:when=5+")
    answer = run_traced(host, *inject, parent_only=True)
    assert answer.code == 1, answer
    failure_line(answer, erin, SAID[error])
    assert {name: sha for name, sha in hash_files(host, erin).items() if name in before} == before
    [orphan] = set(hash_files(host, erin)) - set(before)
    assert orphan.endswith(".json")
    assert len(prove_snapshots(host, erin)) == 2
    assert host.t3("run").code == 0
    assert find_leftovers(host, erin) == set()


@pytest.mark.parametrize("error", ERRORS)
def test_pruning_on_a_failing_disk_loses_none_that_retention_keeps(
    host: Host, erin: User, error: str
) -> None:
    """Rows 29 and 61: the eleventh fsync is the one between a pruned snapshot's data and its
    manifest; after it no other can be noted as let go, and so none goes."""
    inject = ("-e", "trace=fsync", "-e", f"inject=fsync:error={error}:when=11+")
    answer = run_traced(host, *inject, parent_only=True, words=("run", "--keep", "1"))
    assert answer.code == 1, answer
    pruned, recorded = [line for line in answer.out.splitlines() if "WARN" in line]
    assert recorded == f"WARN: {host.store}/attempts.json can't be written: {SAID[error]}"
    assert pruned.endswith(f" can't be pruned: {SAID[error]}")
    assert len(prove_snapshots(host, erin)) == 2
    assert host.t3("run", "--keep", "1").code == 0
    assert len(prove_snapshots(host, erin)) == 1
    assert find_leftovers(host, erin) == set()


@pytest.mark.parametrize("error", ERRORS)
def test_a_new_account_folder_that_cannot_be_synced_holds_nothing(
    host: Host, make_user: Callable[..., User], error: str
) -> None:
    """Row 29: the very first run of an account: its folder's own name is not on the disk."""
    user = make_user("flt-fred", REAL)
    host.write_map(user)
    answer = run_traced(
        host, "-e", "trace=fsync", "-e", f"inject=fsync:error={error}:when=2", parent_only=True
    )
    assert answer.code == 1, answer
    failure_line(answer, user, SAID[error])
    assert hash_files(host, user) == {}
    assert host.t3("run").code == 0
    assert len(prove_snapshots(host, user)) == 1


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("call", "n"),
    [
        pytest.param("pwrite64", 9, id="the copy's write"),
        pytest.param("pwrite64", 10, id="the header's write"),
        pytest.param("sync_file_range", 1, id="the write-back after the copy"),
        pytest.param("sync_file_range", 2, id="the write-back after the header"),
    ],
)
def test_a_failure_of_the_workers_calls_names_nothing(
    host: Host, erin: User, call: str, n: int, error: str
) -> None:
    """Row 29: every result of the worker's writes and of its sync_file_range counts."""
    before = hash_files(host, erin)
    answer, trace = trace_worker(
        host, "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={n}"
    )
    assert f"{error} ({SAID[error]}) (INJECTED)" in trace
    must_name_nothing(host, erin, before, answer, SAID[error])


@pytest.mark.parametrize("error", ERRORS)
def test_where_there_are_no_ranges_the_fdatasync_counts(host: Host, erin: User, error: str) -> None:
    """Row 29: a file system without sync_file_range is asked by fdatasync at the end."""
    before = hash_files(host, erin)
    trace = ("-e", "trace=sync_file_range,fdatasync", "-e", "inject=sync_file_range:error=EINVAL")
    answer, log = trace_worker(host, *trace, "-e", f"inject=fdatasync:error={error}:when=1")
    assert "fdatasync(" in log
    must_name_nothing(host, erin, before, answer, "the new snapshot", SAID[error])


# ---- a disk that takes the write and loses it


@pytest.fixture
def hollow(
    host: Host, make_user: Callable[..., User]
) -> Iterator[tuple[Host, User, Callable[[], None], Callable[[], None]]]:
    """A store on a disk that fails once it is told to (third), and is well again after the fourth.

    The image lies in a small tmpfs. In it, every block in use is there, every free one is a hole,
    and the tmpfs is full: a write to a free block succeeds in the page cache, and its write-back
    fails.
    """
    needs_mkfs("ext4")
    user = make_user("flt-gina", REAL)
    host.write_map(user)
    with mounted("tmpfs", host.folder / "below", "-t", "tmpfs", "-o", "size=64M") as below:
        image, filler, where = below / "image", below / "filler", host.folder / "disk-hollow"
        make_image(
            image,
            "ext4",
            24 * MIB,
            "-b",
            str(BLOCK),
            "-O",
            "^metadata_csum,^uninit_bg",
            "-E",
            "lazy_itable_init=0,nodiscard",
        )
        there = host_on(where, host)
        there.environ["T3_BACKUP_RESERVE"] = "0"
        with mounted(image, where, "-o", "loop,nodelalloc"):
            make_snapshots(there, user, 2)
            subprocess.run(["fsfreeze", "--freeze", str(where)], check=True)
            used = _used_blocks(image)
            subprocess.run(["fsfreeze", "--unfreeze", str(where)], check=True)
        image.unlink()
        _write_hollow(image, used)

        def fail() -> None:
            with filler.open("wb", buffering=0) as file:
                size = MIB
                while size >= BLOCK:
                    try:
                        file.write(b"\xff" * size)
                    except OSError:
                        size //= 2

        with mounted(image, where, "-o", "loop,data=writeback"):
            yield there, user, fail, filler.unlink


def _used_blocks(image: Path) -> list[bytes | None]:
    """The blocks of a file system that is frozen; None for each that is free.

    Where it is only unmounted, a mount namespace that another test has just made may hold it still,
    and what it was about to write.
    """
    dump = subprocess.run(
        ["dumpe2fs", str(image)], capture_output=True, text=True, check=True
    ).stdout
    free: set[int] = set()
    for line in re.findall(r"^  Free blocks: (.*)$", dump, re.MULTILINE):
        for part in filter(None, line.split(", ")):
            first, _, last = part.partition("-")
            free.update(range(int(first), int(last or first) + 1))
    assert len(free) > 1000
    content = image.read_bytes()
    return [
        None if block in free else content[block * BLOCK : (block + 1) * BLOCK]
        for block in range(len(content) // BLOCK)
    ]


def _write_hollow(image: Path, used: list[bytes | None]) -> None:
    """A new image with these blocks, and holes for the others."""
    with image.open("xb", buffering=0) as file:
        for block, content in enumerate(used):
            if content is not None:
                os.pwrite(file.fileno(), content, block * BLOCK)
        file.truncate(len(used) * BLOCK)


Hollow = tuple[Host, User, Callable[[], None], Callable[[], None]]


def test_only_a_descriptor_from_before_the_first_write_hears_of_a_lost_write_back(
    hollow: Hollow,
) -> None:
    """Row 29: the worker's sync fails and the worker says nothing. One who opens now syncs
    "successfully"; settle() doesn't."""
    there, user, fail, _ = hollow
    with Store.open(there.store) as store:
        account_dir = store.account_dir(user.name)
        assert account_dir is not None
        with account_dir, account_dir.stage_file() as staged_file:
            fail()
            # the page cache takes it all
            assert os.write(staged_file.writer, REAL.read_bytes()) == REAL.stat().st_size
            with pytest.raises(OSError, match=r"error|space"):
                os.fdatasync(staged_file.writer)  # what the worker heard, and swallows
            late = os.open(f"/proc/self/fd/{staged_file.reader}", os.O_RDONLY)
            os.fsync(late)  # no error: this is the trap
            # and the cache still shows what the disk has not
            assert os.pread(late, 16, 0) == b"SQLite format 3\0"
            os.close(late)
            with pytest.raises(OSError) as refusal:
                staged_file.settle()
            assert not isinstance(refusal.value, WorkerLost)
            assert refusal.value.errno in (errno.EIO, errno.ENOSPC)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param((), id="an honest worker"),
        pytest.param(
            ("-e", "trace=sync_file_range", "-e", "inject=sync_file_range:retval=0"),
            id="one that never syncs",
        ),
        pytest.param(
            (
                "-e",
                "trace=sync_file_range,fdatasync",
                "-e",
                "inject=sync_file_range:error=EINVAL",
                "-e",
                "inject=fdatasync:retval=0",
            ),
            id="one that skips its fdatasync",
        ),
    ],
)
def test_a_disk_that_loses_the_copy_gets_no_snapshot(hollow: Hollow, lie: tuple[str, ...]) -> None:
    """Row 29: whatever the worker says of its writes, the parent's own fsync decides."""
    there, user, fail, heal = hollow
    before = hash_files(there, user)
    fail()
    answer, _ = trace_worker(there, *lie)
    assert answer.code == 1, answer
    # and not its manifest, which would have failed next
    line = failure_line(answer, user, "the new snapshot")
    assert any(said in line for said in SAID.values()), line
    assert hash_files(there, user) == before
    heal()
    subprocess.run(
        ["mount", "-o", "remount,rw", str(there.folder)], check=False, capture_output=True
    )
    assert len(prove_snapshots(there, user)) == 2
    assert there.t3("run").code == 0
    assert len(prove_snapshots(there, user)) == 3


# ---- power


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_every_named_snapshot_is_whole_after_a_power_cut(
    host: Host,
    make_user: Callable[..., User],
    kind: str,
    record_property: Callable[[str, object], None],
    tell: Callable[[str], None],
) -> None:
    """Row 28: the image as it is at a random moment of a run, mounted again: what the page cache
    held is not in it."""
    needs_mkfs(kind)
    user = make_user("flt-hugo", REAL)
    host.write_map(user)
    chance = random.Random(28)
    named: list[int] = []
    cuts = amount(8, 3)
    with disk(host.folder, "xfs", 1024 * MIB) as below:
        image = below / "image"
        make_image(image, kind, 24 * MIB)
        with mounted(image, host.folder / "disk-live", "-o", "loop") as live:
            there = host_on(live, host)
            there.environ["T3_BACKUP_KEEP"] = "2"
            make_snapshots(there, user, 1)
            for n in range(cuts):
                process = there.start("run")
                pidfd = os.pidfd_open(process.pid)
                select.select([pidfd], [], [], chance.uniform(0.1, 0.4))
                os.close(pidfd)
                frozen = below / f"frozen-{n}"
                subprocess.run(["cp", "--reflink=always", image, frozen], check=True)
                process.communicate()
                assert process.returncode == 0
                commit_row(user)
        for n in range(cuts):
            frozen = below / f"frozen-{n}"
            options = "loop,nouuid" if kind == "xfs" else "loop"
            with mounted(frozen, host.folder / "disk-after", "-o", options) as after:
                found = prove_snapshots(host_on(after, host), user)
                named.append(len(found))
                assert found, f"cut {n}: the snapshot from before is gone"
                _must_be_as_sealed(host_on(after, host), user, found)
                again = host_on(after, host)
                assert again.t3("run").code == 0
                assert find_leftovers(again, user) == set()
            frozen.unlink()
    record_property("power_cuts", len(named))
    tell(f"{kind}: {len(named)} power cuts, snapshots found: {named}")


def _must_be_as_sealed(host: Host, user: User, found: list[Manifest]) -> None:
    for snapshot in found:
        data = (host.account_dir(user) / f"{snapshot.name}.sqlite").read_bytes()
        assert hashlib.sha256(data).hexdigest() == snapshot.live.sha256
