"""What is said of a worker that can't be ended, and whether a later command knows of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.errors import LeftBehind
from t3_backup.store.store import Store
from t3_backup.worker import client, left_behind
from t3_backup.worker.left_behind import explain_by, marked
from t3_backup.worker.limits import Limits
from t3_backup.worker.operations.backup import FindDatabase

MOUNTED = "it can't be ended while what is mounted there"
MOUNTINFO = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:40 / /srv rw - nfs4 nas:/srv rw
23 21 8:2 / /home rw,relatime - xfs /dev/sda2 rw
24 23 0:51 / /home/alice/my\\040disk rw,nosuid shared:2 - fuse.sshfs alice@far: rw,user_id=1000
25 23 0:52 / /home/alicia rw,nosuid - fuse far: rw,user_id=1001
26 23 0:53 / /home/bob/tmp rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("home", "said"),
    [
        (
            "/home/alice",
            f"{MOUNTED} (fuse.sshfs) does not answer; next: umount -f -l '/home/alice/my disk'",
        ),
        (
            "/home/alicia",
            f"{MOUNTED} (fuse) does not answer; next: umount -f -l /home/alicia",
        ),
        ("/srv/carol", "it can't be ended while nfs4 does not answer; next: see to /srv"),
        ("/home/bob", "it can't be ended: it waits for a disk; next: journalctl -k"),
    ],
)
def test_the_mount_that_may_not_answer_is_named(home: str, said: str) -> None:
    """A local one always does; what others lie on, too, is not to be unmounted for one account."""
    assert explain_by(MOUNTINFO, (home,), "it") == said


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def account() -> Account:
    return accounts.own() if os.geteuid() else accounts.find("nobody")


def test_a_mark_that_a_process_keeps_is_known_until_that_ends(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is the kernel's, so nothing of it can be stale."""
    monkeypatch.setattr(left_behind, "_PATIENCE_S", 0.3)
    with marked(store, account) as one:
        worker = subprocess.Popen(["sleep", "300"], pass_fds=[one.mark])
    told = list[str]()
    try:
        with pytest.raises(LeftBehind, match="a worker of an earlier command can't be ended"):
            with marked(store, account, lambda: told.append("it waits")):
                pass
    finally:
        worker.kill()
        worker.wait()
    assert told == ["it waits"]
    with marked(store, account) as one:
        assert one.mark >= 0
    assert f"{account.user}+worker" not in os.listdir(store.path)


def test_each_worker_of_an_account_keeps_its_mark(store: Store, account: Account) -> None:
    """Row 64. By that a later command knows of one that could not be ended."""
    limits = Limits(60, 60, 0, 0, lambda: 0)
    with marked(store, account) as one:
        worker = client.Worker(one, FindDatabase(), limits, waits=True)
    with worker:
        assert f"{account.user}+worker" in os.listdir(store.path)
    with marked(store, account):
        pass
    assert f"{account.user}+worker" not in os.listdir(store.path)


def test_an_account_gets_no_second_worker_before_the_first_has_died(account: Account) -> None:
    """Row 64. Else each step of a command would leave one behind."""
    left_behind.require_none(account)
    worker = subprocess.Popen(["sleep", "300"])
    try:
        left_behind.note_left(account, worker)
        with pytest.raises(LeftBehind, match=rf"an earlier worker of it \(pid {worker.pid}\)"):
            left_behind.require_none(account)
    finally:
        worker.kill()
        worker.wait()
    left_behind.require_none(account)


def test_a_worker_whose_command_was_killed_is_waited_for(store: Store, account: Account) -> None:
    """It ends by itself, but a moment later."""
    with marked(store, account) as one:
        worker = subprocess.Popen(["sleep", "300"], pass_fds=[one.mark])
    with marked(store, account, worker.kill) as one:
        assert one.mark >= 0
    worker.wait()


def test_where_the_store_can_t_have_a_mark_there_is_none(store: Store, account: Account) -> None:
    (store.path / f"{account.user}+worker").mkdir()
    with marked(store, account) as one:
        assert one == account
