"""What is known not to be what was sealed: each fault is told once, with all that break with it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import account_folders
from support.account_folders import ALL, change_pages, database_image, maintenance, publish_image
from support.manifests import make_manifest

from t3_backup.errors import (
    Failure,
    NoRoom,
    SourceError,
    SystemdUnanswered,
    TryLater,
    Upgraded,
    WorkerLost,
)
from t3_backup.history import dependents
from t3_backup.history.dependents import BaseFinder
from t3_backup.history.verify import Finding, VerifyResult, judge_error
from t3_backup.output import messages
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.faults import find_faults, hangs_on
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import DATA, DELTA


def snapshots(count: int) -> list[Manifest]:
    """So many good ones, newest first: `n3`, `n2`, `n1`."""
    return [make_manifest(number, name=f"n{number}") for number in range(count, 0, -1)]


def test_a_base_is_told_once_with_all_that_hang_on_it() -> None:
    failed = {"n4": "SHA-256 x", "n2": hangs_on("n4"), "n1": hangs_on("n4")}
    [fault] = find_faults(snapshots(5), failed)
    assert (fault.snapshot.name, fault.reason, fault.hanging) == ("n4", "SHA-256 x", ("n2", "n1"))
    assert fault.text.startswith("n4 does NOT verify: SHA-256 x; and with it 2 that hang on it: n2")


def test_what_snapshots_share_is_one_fault_and_others_are_others() -> None:
    failed = {"n4": "the archive", "n3": "cut", "n2": "the archive"}
    found = find_faults(snapshots(4), failed)
    assert [(one.snapshot.name, one.hanging) for one in found] == [("n4", ("n2",)), ("n3", ())]


def test_one_that_hangs_on_what_is_gone_or_sound_again_is_told_of_by_itself() -> None:
    [fault] = find_faults(snapshots(2), {"n1": hangs_on("n9")})
    assert (fault.snapshot.name, fault.reason) == ("n1", hangs_on("n9"))


def test_the_next_step_is_a_run_until_there_is_a_newer_good_one() -> None:
    newest, older = ({name: "cut"} for name in ("n2", "n1"))
    assert find_faults(snapshots(2), newest)[0].text.endswith(
        "; next: t3-backup-state run --user alice"
    )
    assert find_faults(snapshots(2), older)[0].text.endswith("t3-backup-state accept alice")
    both = find_faults(snapshots(2), newest | {"n1": "torn"})
    assert [one.newer for one in both] == ["", ""], "a bad one is no good one"


def test_of_many_names_the_first_are_told_and_how_many_more() -> None:
    failed = {f"n{number}": "the archive" for number in range(1, 10)}
    [fault] = find_faults(snapshots(9), failed)
    assert ": n8, n7, n6, n5, n4 and 3 more; next: " in fault.text


@pytest.mark.parametrize(
    "error",
    [
        NoRoom("no room"),
        TryLater("timed out"),
        WorkerLost("killed"),
        SystemdUnanswered("x"),
        Upgraded("t3-backup was upgraded"),
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EMFILE, "too many"),
        OSError(errno.EACCES, "denied"),
        OSError(errno.EAGAIN, "no process"),
    ],
    ids=repr,
)
def test_what_stands_in_the_way_of_a_proof_says_nothing_of_the_bytes(
    error: Failure | OSError,
) -> None:
    assert judge_error(error).outcome == "unchecked"


@pytest.mark.parametrize(
    "error",
    [
        SourceError("no database"),
        Failure("its base is missing"),
        OSError(errno.ENOENT, "gone"),
        OSError(errno.EIO, "the disk has lost it"),
        OSError(errno.ELOOP, "a symlink"),
    ],
    ids=repr,
)
def test_what_is_not_there_or_not_as_it_was_has_failed(error: Failure | OSError) -> None:
    assert judge_error(error).outcome == "failed"


def test_what_failed_counts_where_another_part_could_not_be_checked() -> None:
    found = Finding(unchecked=("no room",)) + Finding(failed=("cut",))
    assert (found.outcome, found.reasons) == ("failed", ("cut", "no room"))
    assert (Finding() + Finding(unchecked=("no room",))).outcome == "unchecked"


def test_what_could_not_be_checked_is_never_said_not_to_verify() -> None:
    result = VerifyResult(make_manifest(), Finding(unchecked=("no room",)))
    [line] = messages.verify_messages(result)
    assert "could not be checked: no room; next: t3-backup-state verify alice" in line.text
    assert messages.fault_messages([result]) == []


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[AccountDir]:
    """Four snapshots of an account: the newest is plain, and the others hang on it in a row."""
    with account_folders.open_account_dir(tmp_path) as account_dir:
        image = database_image(40)
        for day in range(4):
            image = change_pages(image, [day + 1], day + 1)
            publish_image(account_dir, image)
        maintenance(account_dir, ALL).tidy()
        yield account_dir


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.chmod(0o600)
    path.write_bytes(data)


def broken_bases(account_dir: AccountDir) -> list[int | None]:
    """The place of the base at which each breaks, newest first."""
    listing, finder = account_dir.read_listing(), BaseFinder(account_dir)
    found = [finder.find_broken_base(listing, one) for one in listing.snapshots]
    return [None if one is None else listing.snapshots.index(one) for one in found]


def test_what_breaks_at_a_plain_base_is_traced_to_it(folder: AccountDir) -> None:
    assert broken_bases(folder) == [None] * 4
    spoil(folder.path / (folder.read_listing().snapshots[0].name + DATA))
    assert broken_bases(folder) == [None, 0, 0, 0]


def test_what_breaks_at_a_delta_is_traced_to_it(folder: AccountDir) -> None:
    spoil(folder.path / (folder.read_listing().snapshots[1].name + DELTA))
    assert broken_bases(folder) == [None, None, 1, 1]


def test_all_that_need_a_snapshot_directly_or_not_hang_on_it(folder: AccountDir) -> None:
    listing = folder.read_listing()
    names = [one.name for one in listing.snapshots]
    hanging = dependents.find_hanging(listing, dependents.read_forms(folder, listing))
    assert [hanging[name] for name in names] == [
        set(names[1:]),
        set(names[2:]),
        set(names[3:]),
        set(),
    ]
