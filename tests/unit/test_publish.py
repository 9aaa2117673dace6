"""Where the bytes of a new snapshot go: what the newest one has already is not kept twice, and is
looked after."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import account_folders
from support.account_folders import (
    ALL,
    PAGE,
    changed,
    content,
    data_path,
    forms,
    image,
    listed,
    maintenance,
    seal,
    stat_data,
)

from t3_backup.history import page_hashes, reflink
from t3_backup.store.account_dir import AccountDir
from t3_backup.system import native


@pytest.fixture
def account_dir(tmp_path: Path) -> Iterator[AccountDir]:
    with account_folders.opened(tmp_path) as account_dir:
        yield account_dir


def spoil(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(3 * PAGE)
        file.write(b"\xff")
    path.chmod(0o400)


def test_the_same_again_is_not_kept_twice(account_dir: AccountDir) -> None:
    first = seal(account_dir, image(9))
    before = sorted(os.listdir(account_dir.fd))
    again = seal(account_dir, image(9))
    assert (again.unchanged, again.snapshot, again.warnings) == (True, first.snapshot, ())
    assert sorted(os.listdir(account_dir.fd)) == before


@pytest.mark.parametrize(
    "news", [{"label": "prebump-1"}, {"verdict": "suspect"}], ids=["a label", "a verdict"]
)
def test_what_is_to_be_said_of_it_gets_a_name_and_no_room(
    account_dir: AccountDir, news: dict[str, str]
) -> None:
    first, again = seal(account_dir, image(9)), seal(account_dir, image(9), **news)
    assert not again.unchanged
    assert [snapshot.name for snapshot in listed(account_dir)] == [
        again.snapshot.name,
        first.snapshot.name,
    ]
    assert (
        stat_data(account_dir, first.snapshot).st_ino
        == stat_data(account_dir, again.snapshot).st_ino
    )
    account_dir.remove_snapshot(first.snapshot)
    assert content(account_dir, again.snapshot) == image(9), "it goes with its last name"


def test_a_labelled_one_does_not_stand_for_one_without(account_dir: AccountDir) -> None:
    seal(account_dir, image(9), label="prebump-1")
    assert not seal(account_dir, image(9)).unchanged


def test_a_damaged_one_is_not_kept_again_for_the_one_that_vacuum_made_of_it(
    account_dir: AccountDir,
) -> None:
    first = seal(account_dir, image(9), verdict="damaged").snapshot
    seal(account_dir, image(9, 5), verdict="suspect", method="vacuum")
    again = seal(account_dir, image(9), verdict="damaged")
    assert (again.unchanged, again.snapshot) == (True, first)
    assert len(listed(account_dir)) == 2


def test_the_same_as_an_older_one_is_no_confirmation(account_dir: AccountDir) -> None:
    for data in (image(9, 1), image(9, 2)):
        seal(account_dir, data)
    assert not seal(account_dir, image(9, 1)).unchanged
    assert len(listed(account_dir)) == 3


@pytest.mark.parametrize("label", [None, "prebump-1"])
def test_what_the_disk_has_lost_comes_back_with_the_same_from_the_database(
    account_dir: AccountDir, label: str | None
) -> None:
    """And with it all that hangs on it."""
    images = [image(9), changed(image(9), [4], 1)]
    for data in images:
        seal(account_dir, data)
    maintenance(account_dir, ALL).tidy()
    newest, older = listed(account_dir)
    spoil(data_path(account_dir, newest))
    assert content(account_dir, older) != images[0]
    found = seal(account_dir, images[1], label=label)
    assert len(found.warnings) == 1
    assert f"{newest.name} no longer matched its checksum" in found.warnings[0]
    assert [content(account_dir, newest), content(account_dir, older)] == [images[1], images[0]]
    assert forms(account_dir) == ("pd" if label is None else "ppd")
    assert seal(account_dir, images[1], label=label).warnings == ()


def test_every_name_of_what_was_lost_is_mended(account_dir: AccountDir) -> None:
    one, two = (seal(account_dir, image(9), label=label).snapshot for label in ("one", "two"))
    spoil(data_path(account_dir, two))
    seal(account_dir, image(9), label="three")
    assert [content(account_dir, snapshot) for snapshot in (one, two)] == [image(9), image(9)]


def test_where_nothing_can_be_shared_it_takes_room_and_is_there(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the one before (btrfs has them for a checksum), or no room for the clone: what
    was proven is kept."""
    seal(account_dir, image(9))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reflink, "write_shared", fail)
    found = seal(account_dir, changed(image(9), [3], 1), share=True)
    assert "shares nothing with" in found.warnings[0]
    assert content(account_dir, found.snapshot) == changed(image(9), [3], 1)


def test_its_hashes_are_made_anew_where_they_are_lost(account_dir: AccountDir) -> None:
    snapshot = seal(account_dir, image(9)).snapshot
    found = page_hashes.read_page_hashes(account_dir, snapshot)
    assert found is not None
    assert found.hashes == native.hash_pages(image(9), PAGE)
    beside = account_dir.path / f"{snapshot.name}.pages"
    beside.chmod(0o600)
    beside.write_bytes(b"spoilt")
    assert "is not what was written" in page_hashes.find_problem(
        account_dir, account_dir.read_listing(), snapshot
    )
    seal(account_dir, image(9))
    assert (
        page_hashes.read_page_hashes(account_dir, snapshot),
        page_hashes.find_problem(account_dir, account_dir.read_listing(), snapshot),
    ) == (found, "")
