"""The store on every file system that is promised, on those that lack something, and twice within
one second."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.databases import MIB, REAL, commit_row, make_snapshots
from support.fault_injection import run_refused
from support.filesystems import disk, host_on, mounted
from support.host import Host
from support.store_checks import failure_line, find_leftovers, hash_files, prove_snapshots
from support.users import needs_root

from demo.users import User
from t3_backup import accounts, settings
from t3_backup.backup import run
from t3_backup.backup.account import BackupRun
from t3_backup.store.store import Store

pytestmark = needs_root

KINDS = ["ext4", "xfs", "btrfs", "tmpfs", "ramfs", "overlay"]
TMPFILE = os.O_TMPFILE & ~os.O_DIRECTORY


@pytest.fixture
def ivan(make_user: Callable[..., User], host: Host) -> User:
    """A user with the real database."""
    user = make_user("flt-ivan", REAL)
    host.write_map(user)
    return user


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, host: Host) -> Iterator[Host]:
    """The host with its store on a file system of each kind."""
    if request.param == "overlay":
        with mounted("tmpfs", host.folder / "below", "-t", "tmpfs", "-o", "size=16M") as below:
            for name in ("lower", "upper", "work"):
                (below / name).mkdir()
            layers = ",".join(
                f"{o}={below / n}"
                for o, n in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
            )
            with mounted(
                "overlay", host.folder / "disk-overlay", "-t", "overlay", "-o", layers
            ) as where:
                yield host_on(where, host)
        return
    with disk(host.folder, request.param, 16 * MIB) as where:
        yield host_on(where, host)


def test_run_prune_list_and_verify_work(there: Host, ivan: User) -> None:
    """Rows 27 and 13: unnamed files, leases, links; and pruning sees what was named a moment ago.

    btrfs lists a folder as it was when its descriptor was opened or last rewound.
    """
    if "ramfs" in there.folder.name:  # it has no size, so nothing is ever free on it
        there.environ["T3_BACKUP_RESERVE"] = "0"
        answer = there.t3("run")
        assert answer.code == 1
        failure_line(answer, ivan, "no room")
        assert hash_files(there, ivan) == {}
        return
    make_snapshots(there, ivan, 2)
    answer = there.t3("run", "--keep", "2", "--json")
    assert answer.code == 0, answer
    assert len(prove_snapshots(there, ivan)) == 2
    assert find_leftovers(there, ivan) == set()
    assert len(there.t3("list", "--json").account(ivan.name)["snapshots"]) == 2
    verified = there.t3("verify", "--json")
    assert verified.code == 0, verified
    assert [entry["verifies"] for entry in verified.account(ivan.name)["snapshots"]] == [True, True]


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EISDIR])
def test_without_unnamed_files_a_snapshot_is_sealed_just_the_same(
    host: Host, ivan: User, error: int
) -> None:
    """Row 27: O_TMPFILE refused by the kernel, as NFS and old ones do: a .partial- name, which the
    seal takes away."""
    answer = run_refused(host, "openat", 2, TMPFILE, TMPFILE, error)
    assert answer.code == 0, answer
    [snapshot] = prove_snapshots(host, ivan)
    assert find_leftovers(host, ivan) == set()
    for ending in ("sqlite", "json"):
        status = (host.account_dir(ivan) / f"{snapshot.name}.{ending}").stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode), status.st_nlink) == (0, 0o400, 1)


def test_without_unnamed_files_a_failure_leaves_no_partial_name(host: Host, ivan: User) -> None:
    """Row 19: the only file that goes is our own, and it does go."""
    ivan.database.write_bytes(b"no database at all" * 100)
    answer = run_refused(host, "openat", 2, TMPFILE, TMPFILE, errno.EOPNOTSUPP)
    assert answer.code == 1, answer
    failure_line(answer, ivan, "not a SQLite database")
    assert hash_files(host, ivan) == {}


def test_any_other_refusal_of_an_unnamed_file_is_a_failure_and_no_reason_for_a_name(
    host: Host, ivan: User
) -> None:
    """Row 29: EIO says something about the disk, not about what it can do."""
    answer = run_refused(host, "openat", 2, TMPFILE, TMPFILE, errno.EIO)
    assert answer.code == 1, answer
    failure_line(answer, ivan, str(host.account_dir(ivan)), os.strerror(errno.EIO))
    assert hash_files(host, ivan) == {}


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_leases_nothing_is_named(host: Host, ivan: User, error: int) -> None:
    """Row 36: no lease, no proof that nobody can write any more."""
    make_snapshots(host, ivan, 1)
    before = hash_files(host, ivan)
    answer = run_refused(host, "fcntl", 1, 0xFFFFFFFF, fcntl.F_SETLEASE, error)
    assert answer.code == 1, answer
    failure_line(answer, ivan, "grants no leases", os.strerror(error), "ext4, xfs or btrfs")
    assert hash_files(host, ivan) == before


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize(("call", "position", "value"), [("openat2", 3, 24), ("pidfd_open", 1, 0)])
def test_what_a_container_s_filter_does_not_know_is_done_without(
    host: Host, ivan: User, call: str, position: int, value: int, error: int
) -> None:
    """An older container runtime answers EPERM to each call that is newer than its list."""
    for words in (["run"], ["verify"], ["restore", ivan.name, "--yes"]):
        answer = run_refused(host, call, position, 0xFFFFFFFF, value, error, words=words)
        assert answer.code == 0, answer
    assert len(prove_snapshots(host, ivan)) >= 1


def test_a_second_snapshot_in_the_same_second_gets_a_number(host: Host, ivan: User) -> None:
    """Row 33: three in one second, by the same clock: none takes the name of another, and their
    order is kept."""
    values = replace(settings.load({}, host.env()), keep=14)
    with Store.open(values.dest, create=True) as store:
        job = BackupRun(
            values,
            store,
            None,
            threading.Event(),
            lambda *_: None,
            lambda: datetime(2026, 11, 24, 3, 30, 12, tzinfo=UTC),
        )
        results = []
        for _ in range(3):
            commit_row(ivan)
            results += run.run_backups(job, [accounts.find(ivan.name)], lambda _: None)
    assert [result.outcome for result in results] == ["backed_up"] * 3
    stem = "state-20261124T033012Z"
    assert [snapshot.name for snapshot in prove_snapshots(host, ivan)] == [
        f"{stem}.3",
        f"{stem}.2",
        stem,
    ]


def test_a_name_that_somebody_left_is_never_written_over(host: Host, ivan: User) -> None:
    """Row 27: data without a manifest, in the very second: it stays as it is, and the snapshot gets
    another name."""
    values = settings.load({}, host.env())
    with Store.open(values.dest, create=True) as store:
        account_dir = store.account_dir(ivan.name, create=True)
        assert account_dir is not None
        with account_dir:
            stray = account_dir.path / "state-20261124T033012Z.sqlite"
            stray.write_bytes(b"somebody's")
        job = BackupRun(
            values,
            store,
            None,
            threading.Event(),
            lambda *_: None,
            lambda: datetime(2026, 11, 24, 3, 30, 12, tzinfo=UTC),
        )
        [result] = run.run_backups(job, [accounts.find(ivan.name)], lambda _: None)
    assert result.snapshots[0].manifest.name == "state-20261124T033012Z.2"
    assert stray.read_bytes() == b"somebody's"
