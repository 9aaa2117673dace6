"""Restores that have not ended, as whoever takes no lock sees them: interrupted where nobody holds
the store, else perhaps at work."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from t3_backup.restore import intent_log, pending
from t3_backup.restore.intent_log import Intent
from t3_backup.restore.pending import PendingRestore
from t3_backup.store import lock
from t3_backup.store.store import Store

ALICE = Intent(
    "alice",
    "state-20261124T033012Z",
    "2026-11-24T09:00:00Z",
    "state.sqlite.replaced-x",
    unit="t3-serve@alice.service",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


@contextmanager
def holding(store: Store, operation: int) -> Iterator[None]:
    """Somebody else holds the store."""
    fd = os.open(store.path, os.O_RDONLY)
    try:
        fcntl.flock(fd, operation)
        yield
    finally:
        os.close(fd)


def test_where_there_is_none_there_is_nothing_to_say(store: Store) -> None:
    assert pending.find_pending(store) == []


def test_where_nobody_holds_the_store_it_was_interrupted_and_the_text_says_what_to_do(
    store: Store,
) -> None:
    ALICE.save(store)
    [found] = pending.find_pending(store)
    assert found == PendingRestore("alice", ALICE.snapshot, ALICE.began, ALICE.unit)
    assert found.text == (
        "a restore of alice to state-20261124T033012Z, begun at 2026-11-24T09:00:00Z, was "
        "interrupted; "
        "the next run ends it; to end it now: t3-backup-state accept alice; "
        "t3-serve@alice.service stays stopped until then"
    )
    assert found.as_json() == {
        "snapshot": ALICE.snapshot,
        "began": ALICE.began,
        "interrupted": True,
        "text": found.text,
    }


def test_a_restore_that_touches_no_server_names_none(store: Store) -> None:
    Intent("alice", ALICE.snapshot, ALICE.began, ALICE.aside).save(store)
    assert pending.find_pending(store)[0].text.endswith("t3-backup-state accept alice")


sees_locks = pytest.mark.skipif(
    not Path("/proc/locks").exists(),
    reason="the service can't see who holds a lock (ProcSubset=pid)",
)


@sees_locks
def test_where_somebody_holds_the_store_it_may_run(store: Store) -> None:
    ALICE.save(store)
    with holding(store, fcntl.LOCK_EX):
        [found] = pending.find_pending(store)
        assert found.running
        assert "is running or was interrupted" in found.text
        assert found.as_json()["interrupted"] is False
    assert not pending.find_pending(store)[0].running


def test_what_is_locked_on_another_disk_is_not_the_store_though_it_has_its_inode() -> None:
    """Else its holder would be asked to pause, by a signal."""
    text = """1: FLOCK  ADVISORY  READ 4711 07:01:12 0 EOF
2: POSIX  ADVISORY  WRITE 815 07:00:12 0 EOF
3: FLOCK  ADVISORY  WRITE 42 07:00:12 0 EOF
4: FLOCK  ADVISORY  READ 43 00:2a:12 0 EOF
"""
    assert list(lock.parse_flocks(text, os.makedev(7, 0), 12)) == [("WRITE", "42")]
    found = [pid for _, pid in lock.parse_flocks(text, os.makedev(0, 7), 12)]
    assert found == ["4711", "42", "43"], "btrfs has one number there, and stat(2) another"


@sees_locks
def test_where_somebody_holds_the_store_that_one_outside_is_of_it_may_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path / "another", create=True) as another:
        its = replace(ALICE, store=str(another.path))
        monkeypatch.setattr(intent_log, "users_with_intent", lambda _: ["alice"])
        monkeypatch.setattr(intent_log, "load_intent", lambda *_: its)
        assert not pending.find_pending(store)[0].running
        with holding(another, fcntl.LOCK_EX):
            assert pending.find_pending(store)[0].running


def test_who_only_reads_the_store_is_no_restore(store: Store) -> None:
    ALICE.save(store)
    with holding(store, fcntl.LOCK_SH):
        assert not pending.find_pending(store)[0].running


def test_looking_takes_no_lock(store: Store) -> None:
    ALICE.save(store)
    pending.find_pending(store)
    with holding(store, fcntl.LOCK_EX | fcntl.LOCK_NB):
        pass


def test_one_that_began_just_after_the_lock_was_looked_at_was_not_interrupted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free_and_then_begun(_: int) -> bool:
        ALICE.save(store)
        return False

    Intent("bob", ALICE.snapshot, ALICE.began, ALICE.aside).save(store)
    monkeypatch.setattr(lock, "is_held", free_and_then_begun)
    assert [(found.user, found.running) for found in pending.find_pending(store)] == [
        ("alice", True),
        ("bob", False),
    ]


def test_one_that_ended_while_we_looked_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free_since_it_ended(_: int) -> bool:
        ALICE.remove(store)
        return False

    ALICE.save(store)
    monkeypatch.setattr(lock, "is_held", free_since_it_ended)
    assert pending.find_pending(store) == []


def test_one_that_ended_just_before_it_was_read_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ALICE.save(store)
    monkeypatch.setattr(intent_log, "load_intent", lambda *_: None)
    assert pending.find_pending(store) == []


def test_one_that_cannot_be_read_hides_no_other(store: Store) -> None:
    ALICE.save(store)
    (store.path / "bob+restore.json").write_text("{")
    alice, bob = pending.find_pending(store)
    assert alice.user == "alice"
    assert (bob.user, bob.snapshot) == ("bob", None)
    assert str(store.path / "bob+restore.json") in bob.text
    assert "look at it, then remove it" in bob.text
    assert intent_log.users_with_intent(store) == ["alice", "bob"], "nothing was removed"
