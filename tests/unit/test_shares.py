"""What one account may take of the store's room: its share, and more as long as others have theirs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from t3_backup.backup import shares
from t3_backup.backup.shares import Shares
from t3_backup.store.store import Store
from t3_backup.worker.limits import Limits


@pytest.mark.parametrize(
    ("taken", "free", "allowed"),
    [
        (0, 1000, 800),  # nobody has taken anything yet: all but what is the others'
        (100, 900, 700),
        (800, 200, 0),  # from here on it is the others'
        (800, 150, -50),
        (100, 150, 150),  # has less than an equal share, which nobody else may have taken
        (250, 150, 0),
    ],
)
def test_beyond_an_equal_share_a_fifth_of_the_room_stays_free_for_the_others(
    taken: int, free: int, allowed: int
) -> None:
    """Row 46."""
    assert Shares(1000, 4).allowance(taken, free) == allowed


def test_where_there_are_no_others_there_is_no_limit() -> None:
    assert Shares(1000, 1).allowance(900, 10) is None


def test_doubtful_copies_have_a_tenth_of_the_room_or_an_equal_share() -> None:
    assert [Shares(1000, accounts).doubtful for accounts in (1, 2, 10, 50)] == [100, 100, 100, 20]


def test_one_folder_that_a_bad_disk_keeps_from_being_measured_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        for user in ("alice", "bob"):
            with store.account_dir(user, create=True) or pytest.fail("no folder"):
                pass
        monkeypatch.setattr(shares, "used_bytes", fail_to_read)
        measured = Shares.measure(store, 1, 0)
    assert measured.accounts == 2
    assert measured.room > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_one_folder_that_is_anothers_stops_nobody(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        with store.account_dir("alice", create=True) or pytest.fail("no folder"):
            pass
        os.chown(store.path / "alice", 65534, 65534)
        assert Shares.measure(store, 1, 0).room > 0


@pytest.mark.parametrize(("allowance", "room"), [(None, 900), (200, 200), (2000, 900), (-50, 0)])
def test_a_worker_is_told_of_what_the_account_may_take(allowance: int | None, room: int) -> None:
    """Row 46. By that it passes over a database that would cost the others theirs."""
    limits = Limits(1, 1, 0, 100, lambda: 1000, allowance=allowance)
    assert limits.room() == room


def fail_to_read(_folder: int) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
