"""The catalog: what was sealed and let go is known, whatever happens to the folder or the file."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.account_folders import (
    ALL,
    clean_up,
    list_snapshots,
    maintenance,
    open_account_dir,
    publish_image,
    publish_images,
)
from support.processes import until
from support.sampling import sample

from t3_backup.store import catalog_file
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.catalog import Catalog, Entry, Proof
from t3_backup.store.catalog_format import LINE, SLOT, parse_slots
from t3_backup.store.leftovers import check_catalog
from t3_backup.store.losses import find_lost
from t3_backup.store.names import DATA, MANIFEST
from t3_backup.store.store import Store
from t3_backup.system import native

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PAGES = b"SQLite format 3\0" + bytes(4080)


@pytest.fixture
def account_dir(tmp_path: Path) -> Iterator[AccountDir]:
    with open_account_dir(tmp_path) as account_dir:
        yield account_dir


def seal(account_dir: AccountDir, *names: str, proof: Proof | None = None) -> None:
    account_dir.change_catalog(lambda _: [Entry(name, "sealed", proof) for name in names])


def file_of(account_dir: AccountDir) -> Path:
    return account_dir.path.with_name("alice+catalog")


def states(account_dir: AccountDir) -> dict[str, str]:
    return {name: entry.state for name, entry in account_dir.read_catalog().entries.items()}


def lost(account_dir: AccountDir) -> tuple[str, ...]:
    return account_dir.read_catalog().lost(account_dir.read_listing())


# ---- what is known


def test_a_published_snapshot_is_known_as_sealed_and_proven(account_dir: AccountDir) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    snapshot = publish_image(account_dir, PAGES).snapshot
    assert states(account_dir) == {snapshot.name: "sealed"}
    proof = account_dir.read_catalog().proof_of(snapshot.name)
    assert proof is not None
    assert (proof.outcome, proof.reason) == ("verified", "")
    assert before <= proof.when <= datetime.now(UTC)
    assert lost(account_dir) == ()


@pytest.mark.parametrize("ending", [DATA, MANIFEST])
def test_a_snapshot_whose_data_or_manifest_is_removed_is_lost_and_stays_so(
    account_dir: AccountDir, ending: str
) -> None:
    """Row 61: nothing of what is left goes, and run after run tells it."""
    names = [publish_image(account_dir, PAGES + bytes(4096 * n)).snapshot.name for n in range(2)]
    account_dir.remove_file(names[0] + ending)
    left = account_dir.read_names()
    for _ in range(2):
        clean_up(account_dir)
        assert check_catalog(account_dir, account_dir.read_listing()).lost == (names[0],)
    assert account_dir.read_names() == left


def test_a_crash_before_the_data_was_named_is_no_loss(account_dir: AccountDir) -> None:
    """Row 27: a manifest without data that is not known goes without a word."""
    snapshot = publish_image(account_dir, PAGES).snapshot
    os.unlink(file_of(account_dir))
    account_dir.remove_file(snapshot.name + DATA)
    clean_up(account_dir)
    assert account_dir.read_names().isdisjoint({snapshot.name + MANIFEST})
    assert lost(account_dir) == ()


def test_what_is_sound_and_not_known_is_taken_in_without_a_word(account_dir: AccountDir) -> None:
    """After an upgrade, or a crash between the last name and the entry."""
    snapshot = publish_image(account_dir, PAGES).snapshot
    os.unlink(file_of(account_dir))
    checked = check_catalog(account_dir, account_dir.read_listing())
    assert checked == ((), "")
    assert account_dir.read_catalog().entries == {snapshot.name: Entry(snapshot.name, "sealed")}


def test_a_whole_folder_that_is_gone_is_lost(account_dir: AccountDir) -> None:
    snapshot = publish_image(account_dir, PAGES).snapshot
    assert account_dir.read_catalog().lost(None) == (snapshot.name,)
    assert catalog_file.users_with_catalog(account_dir.store_fd) == ["alice"]


def test_what_retention_removes_was_let_go(account_dir: AccountDir) -> None:
    snapshot = publish_image(account_dir, PAGES).snapshot
    account_dir.remove_snapshot(snapshot)
    assert states(account_dir) == {snapshot.name: "removed"}
    assert lost(account_dir) == ()


def test_a_removal_that_was_interrupted_before_anything_went_is_decided_again(
    account_dir: AccountDir,
) -> None:
    snapshot = publish_image(account_dir, PAGES).snapshot
    account_dir.change_catalog(lambda _: [Entry(snapshot.name, "removing")])
    clean_up(account_dir)
    check_catalog(account_dir, account_dir.read_listing())
    assert states(account_dir) == {snapshot.name: "sealed"}
    assert list_snapshots(account_dir) == [snapshot]


def test_a_removal_that_was_interrupted_is_completed_and_no_loss(account_dir: AccountDir) -> None:
    snapshot = publish_image(account_dir, PAGES).snapshot
    account_dir.change_catalog(lambda _: [Entry(snapshot.name, "removing")])
    account_dir.remove_file(snapshot.name + DATA)
    assert lost(account_dir) == ()
    clean_up(account_dir)
    assert check_catalog(account_dir, account_dir.read_listing()) == ((), "")
    assert states(account_dir) == {snapshot.name: "removed"}
    assert account_dir.read_names() == frozenset()


def test_so_it_is_where_the_live_image_is_there_still(account_dir: AccountDir) -> None:
    """A power cut may have kept either name."""
    images = {"state.sqlite": PAGES, "other.sqlite": PAGES + bytes(4096)}
    snapshot = publish_images(account_dir, images, "state.sqlite").snapshot
    account_dir.change_catalog(lambda _: [Entry(snapshot.name, "removing")])
    [other] = [image for image in snapshot.images if image.file == "other.sqlite"]
    account_dir.remove_file(other.name + DATA)
    clean_up(account_dir)
    assert account_dir.read_names() == frozenset()
    assert lost(account_dir) == ()


def test_what_is_published_after_a_folder_was_read_is_not_lost(tmp_path: Path) -> None:
    """Those who only look take no lock."""
    with open_account_dir(tmp_path) as account_dir, Store.open(tmp_path / "store") as store:
        read = account_dir.read_listing()
        snapshot = publish_image(account_dir, PAGES).snapshot
        assert find_lost(store, "alice", read) == ()
        account_dir.remove_file(snapshot.name + DATA)
        assert find_lost(store, "alice", read) == (snapshot.name,)


def test_what_cannot_be_noted_is_not_let_go(
    account_dir: AccountDir,
) -> None:
    """Row 61: the note comes first."""
    snapshot = publish_image(account_dir, PAGES).snapshot
    path = file_of(account_dir)
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=os.strerror(errno.EISDIR)):
        account_dir.remove_snapshot(snapshot)
    assert list_snapshots(account_dir) == [snapshot]


def test_what_an_earlier_version_let_go_is_no_loss(account_dir: AccountDir) -> None:
    """It notes nothing here; what it has sealed since tells that it was at work."""
    first, second = [
        publish_image(account_dir, PAGES + bytes(4096 * n), tool_version="0.1.0").snapshot
        for n in range(2)
    ]
    account_dir.change_catalog(lambda _: [Entry(second.name, "removed")])
    account_dir.remove_file(first.name + DATA)
    assert lost(account_dir) == (first.name,)
    os.unlink(file_of(account_dir))
    seal(account_dir, first.name)
    assert lost(account_dir) == ()
    check_catalog(account_dir, account_dir.read_listing())
    assert states(account_dir) == {first.name: "removed", second.name: "sealed"}


# ---- the file


def test_what_was_written_is_read_again(account_dir: AccountDir) -> None:
    proofs = [
        Proof(NOON, "failed", "SHA-256 0, 1 was sealed"),
        Proof(NOON, "unchecked", "no room"),
        None,
    ]
    for number, proof in enumerate(proofs):
        seal(account_dir, f"state-{number}", proof=proof)
    assert account_dir.read_catalog() == Catalog(
        {f"state-{n}": Entry(f"state-{n}", "sealed", proof) for n, proof in enumerate(proofs)}
    )


def test_a_reason_that_is_too_long_or_foreign_is_cut(account_dir: AccountDir) -> None:
    name = f"state-20261124T120000Z.99-{'l' * 64}"
    for reason in ("x" * 10_000, "\N{SNOWMAN}" * 400, "\x1b[2J\n"):
        seal(account_dir, name, proof=Proof(NOON, "failed", reason))
        proof = account_dir.read_catalog().proof_of(name)
        assert proof is not None
        assert proof.reason.isprintable()
        assert len(proof.reason) > 0


def test_places_of_what_went_are_used_again_and_the_file_stays_small(
    account_dir: AccountDir,
) -> None:
    for number in range(100):
        seal(account_dir, f"state-{number}")
        account_dir.change_catalog(lambda _, n=number: [Entry(f"state-{n}", "removed")])  # type: ignore[misc]
    assert file_of(account_dir).stat().st_size == 64 * SLOT
    assert list(states(account_dir))[:36] == [f"state-{number}" for number in range(64, 100)]
    seal(account_dir, *(f"other-{number}" for number in range(200)))
    sealed = [name for name, state in states(account_dir).items() if state == "sealed"]
    assert len(sealed) == 200


def test_a_change_needs_no_block_that_the_file_does_not_have(account_dir: AccountDir) -> None:
    """Row 61: on a full disk, too, what goes is noted before."""
    seal(account_dir, "state-1", "state-2")
    before = file_of(account_dir).stat()
    account_dir.change_catalog(lambda _: [Entry("state-1", "removing")])
    seal(account_dir, "state-3")
    after = file_of(account_dir).stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (
        before.st_ino,
        before.st_size,
        before.st_blocks,
    )
    assert before.st_blocks * 512 >= before.st_size  # it has no holes


def test_wherever_a_write_is_torn_the_entry_is_as_before_or_as_wanted(
    account_dir: AccountDir,
) -> None:
    """Row 28: each line is written twice, the second after the first is on the disk."""
    seal(account_dir, "state-1", "state-2", proof=Proof(NOON, "verified"))
    old = file_of(account_dir).read_bytes()
    before = account_dir.read_catalog().entries
    seal(account_dir, "state-1", "state-3", proof=Proof(NOON, "failed", "rot"))
    new = file_of(account_dir).read_bytes()
    after = account_dir.read_catalog().entries
    half = bytearray(old)
    for copy in (0, 1):  # the first lines are whole before the second are begun
        lines = [
            at for at in range(copy * LINE, len(new), SLOT) if old[at:][:LINE] != new[at:][:LINE]
        ]
        assert len(lines) == 2
        for length in sample(range(LINE + 1), 8, "torn lines of a catalog"):
            torn = bytearray(half)
            for at in lines:
                torn[at : at + length] = new[at : at + length]
            file_of(account_dir).write_bytes(torn)
            found = account_dir.read_catalog()
            assert not found.problem
            for name in ("state-1", "state-2", "state-3"):
                assert found.entries.get(name) in (before.get(name), after[name])
            if copy == 1:
                assert found.entries == after
        for at in lines:
            half[at : at + LINE] = new[at : at + LINE]
    assert bytes(half) == new


def test_the_second_line_is_not_touched_before_the_first_one_is_on_the_disk(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 61."""
    seal(account_dir, "state-1")
    before = file_of(account_dir).read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="the disk fails"):
        patched.setattr(native, "sync_file", fail)
        account_dir.change_catalog(lambda _: [Entry("state-1", "removing")])
    after = file_of(account_dir).read_bytes()
    assert (after[:LINE] != before[:LINE], after[LINE:]) == (True, before[LINE:])


@pytest.mark.parametrize("call", ["sync_file", "sync_directory"])
def test_a_new_one_is_on_the_disk_or_that_is_said_and_nothing_is_left(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="the disk fails"):
        patched.setattr(native, call, fail)
        seal(account_dir, "state-1")
    beside = set(os.listdir(account_dir.path.parent)) - {file_of(account_dir).name}
    assert beside == {"alice"}


@pytest.mark.skipif(
    not Path("/proc/locks").exists(),
    reason="the service can't see who waits for a lock (ProcSubset=pid)",
)
def test_whoever_waited_for_one_that_was_put_aside_writes_to_the_new_one(
    account_dir: AccountDir,
) -> None:
    seal(account_dir, "state-1")
    path = file_of(account_dir)
    with path.open("rb") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        waiting = threading.Thread(target=seal, args=(account_dir, "state-2"))
        waiting.start()
        until(
            lambda: re.search(rf"-> FLOCK .*:{os.fstat(old.fileno()).st_ino} ", read_locks()),
            "who waits for the lock",
        )
        path.rename(path.with_name("alice+catalog.broken"))
        seal(account_dir, "state-3")  # in a new one
    waiting.join()
    assert set(states(account_dir)) == {"state-2", "state-3"}


def read_locks() -> str:
    return Path("/proc/locks").read_text(encoding="ascii")


def test_one_bad_line_of_an_entry_is_not_missed(account_dir: AccountDir) -> None:
    seal(account_dir, "state-1", proof=Proof(NOON, "failed", "rot"))
    whole = file_of(account_dir).read_bytes()
    before = account_dir.read_catalog()
    for at in sample(range(SLOT), 8, "bad bytes of a catalog"):
        for bit in (0, 6):
            data = bytearray(whole)
            data[at] ^= 1 << bit
            file_of(account_dir).write_bytes(data)
            assert account_dir.read_catalog() == before


def test_a_damaged_one_is_kept_aside_told_and_built_anew(account_dir: AccountDir) -> None:
    """What can be read of it stays known; of what can't a manifest without data is a loss."""
    first, second, third = [
        publish_image(account_dir, PAGES + bytes(4096 * n)).snapshot for n in range(3)
    ]
    account_dir.record_proof(third.name, Proof(NOON, "failed", "rot"))
    account_dir.remove_file(first.name + DATA)
    path = file_of(account_dir)
    data = bytearray(path.read_bytes())
    for number, slot in enumerate(parse_slots(bytes(data))):
        if slot.entry is not None and slot.entry.name in (first.name, second.name):
            data[number * SLOT : (number + 1) * SLOT] = os.urandom(SLOT)
    path.write_bytes(data)
    clean_up(account_dir)
    checked = check_catalog(account_dir, account_dir.read_listing())
    assert checked.lost == (first.name,)
    assert "2 entries can't be read" in checked.problem
    assert path.with_name("alice+catalog.broken").read_bytes() == data
    assert set(states(account_dir).values()) == {"sealed"}
    assert len(states(account_dir)) == 3
    proof = account_dir.read_catalog().proof_of(third.name)
    assert proof is not None
    assert proof.outcome == "failed"
    assert check_catalog(account_dir, account_dir.read_listing()) == ((first.name,), "")


@pytest.mark.parametrize(
    "data",
    [b"", bytes(4096), b"{}\n", bytes(range(256)) * 20, b"[" * 512 * 9],
    ids=["nothing", "zeros", "too short", "noise", "too deep"],
)
def test_whatever_lies_there_costs_no_snapshot_and_no_traceback(
    account_dir: AccountDir, data: bytes
) -> None:
    snapshot = publish_image(account_dir, PAGES).snapshot
    file_of(account_dir).write_bytes(data)
    assert lost(account_dir) == ()
    assert "alice+catalog.broken" in check_catalog(account_dir, account_dir.read_listing()).problem
    assert states(account_dir) == {snapshot.name: "sealed"}
    assert not account_dir.read_catalog().problem
    assert maintenance(account_dir, ALL).tidy().warnings == []


def test_of_those_who_write_at_once_each_is_heard(account_dir: AccountDir) -> None:
    """Several proofs share the store's lock; the file has one of its own."""
    names = [f"state-{number}" for number in range(12)]
    threads = [threading.Thread(target=seal, args=(account_dir, name)) for name in names]
    random.shuffle(threads)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states(account_dir)) == sorted(names)


def test_a_link_in_its_place_is_not_followed(account_dir: AccountDir, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b" " * SLOT)
    file_of(account_dir).symlink_to(secret)
    assert "can't be read" in account_dir.read_catalog().problem
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        seal(account_dir, "state-1")
    assert secret.read_bytes() == b" " * SLOT
