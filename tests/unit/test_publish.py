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
    change_pages,
    data_path,
    database_image,
    list_snapshots,
    maintenance,
    publish_image,
    publish_images,
    read_image,
    stat_data,
    storage_forms,
)

from t3_backup.history import page_hashes, reflink
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.names import DATA
from t3_backup.system import native


@pytest.fixture
def account_dir(tmp_path: Path) -> Iterator[AccountDir]:
    with account_folders.open_account_dir(tmp_path) as account_dir:
        yield account_dir


def spoil(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(3 * PAGE)
        file.write(b"\xff")
    path.chmod(0o400)


def test_the_same_again_is_not_kept_twice(account_dir: AccountDir) -> None:
    first = publish_image(account_dir, database_image(9))
    before = sorted(os.listdir(account_dir.fd))
    again = publish_image(account_dir, database_image(9))
    assert (again.unchanged, again.snapshot, again.warnings) == (True, first.snapshot, ())
    assert sorted(os.listdir(account_dir.fd)) == before


def test_no_snapshot_whose_last_proof_failed_stands_for_what_is_the_same(
    account_dir: AccountDir,
) -> None:
    """Row 58: its data is looked at as ever, and kept once."""
    first = publish_image(account_dir, database_image(9)).snapshot
    again = publish_image(account_dir, database_image(9), unsound={first.name})
    assert (again.unchanged, again.snapshot.sequence) == (False, 2)
    found = {os.stat(data_path(account_dir, one)).st_ino for one in list_snapshots(account_dir)}
    assert len(found) == 1


@pytest.mark.parametrize(
    "news", [{"label": "prebump-1"}, {"verdict": "suspect"}], ids=["a label", "a verdict"]
)
def test_what_is_to_be_said_of_it_gets_a_name_and_no_room(
    account_dir: AccountDir, news: dict[str, str]
) -> None:
    first, again = (
        publish_image(account_dir, database_image(9)),
        publish_image(account_dir, database_image(9), **news),
    )
    assert not again.unchanged
    assert [snapshot.name for snapshot in list_snapshots(account_dir)] == [
        again.snapshot.name,
        first.snapshot.name,
    ]
    assert (
        stat_data(account_dir, first.snapshot).st_ino
        == stat_data(account_dir, again.snapshot).st_ino
    )
    account_dir.remove_snapshot(first.snapshot)
    assert read_image(account_dir, again.snapshot) == database_image(9), (
        "it goes with its last name"
    )


def test_a_labelled_one_does_not_stand_for_one_without(account_dir: AccountDir) -> None:
    publish_image(account_dir, database_image(9), label="prebump-1")
    assert not publish_image(account_dir, database_image(9)).unchanged


def test_a_damaged_one_is_not_kept_again_for_the_one_that_vacuum_made_of_it(
    account_dir: AccountDir,
) -> None:
    first = publish_image(account_dir, database_image(9), verdict="damaged").snapshot
    publish_image(account_dir, database_image(9, 5), verdict="suspect", method="vacuum")
    again = publish_image(account_dir, database_image(9), verdict="damaged")
    assert (again.unchanged, again.snapshot) == (True, first)
    assert len(list_snapshots(account_dir)) == 2


def test_the_same_as_an_older_one_is_no_confirmation(account_dir: AccountDir) -> None:
    for data in (database_image(9, 1), database_image(9, 2)):
        publish_image(account_dir, data)
    assert not publish_image(account_dir, database_image(9, 1)).unchanged
    assert len(list_snapshots(account_dir)) == 3


@pytest.mark.parametrize("label", [None, "prebump-1"])
def test_what_the_disk_has_lost_comes_back_with_the_same_from_the_database(
    account_dir: AccountDir, label: str | None
) -> None:
    """And with it all that hangs on it."""
    images = [database_image(9), change_pages(database_image(9), [4], 1)]
    for data in images:
        publish_image(account_dir, data)
    maintenance(account_dir, ALL).tidy()
    newest, older = list_snapshots(account_dir)
    spoil(data_path(account_dir, newest))
    assert read_image(account_dir, older) != images[0]
    found = publish_image(account_dir, images[1], label=label)
    assert len(found.warnings) == 1
    assert f"{newest.name} no longer matched its checksum" in found.warnings[0]
    assert [read_image(account_dir, newest), read_image(account_dir, older)] == [
        images[1],
        images[0],
    ]
    assert storage_forms(account_dir) == ("pd" if label is None else "ppd")
    assert publish_image(account_dir, images[1], label=label).warnings == ()


def test_every_name_of_what_was_lost_is_mended(account_dir: AccountDir) -> None:
    one, two = (
        publish_image(account_dir, database_image(9), label=label).snapshot
        for label in ("one", "two")
    )
    spoil(data_path(account_dir, two))
    publish_image(account_dir, database_image(9), label="three")
    assert [read_image(account_dir, snapshot) for snapshot in (one, two)] == [
        database_image(9),
        database_image(9),
    ]


def test_where_nothing_can_be_shared_it_takes_room_and_is_there(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the one before (btrfs has them for a checksum), or no room for the clone: what
    was proven is kept."""
    publish_image(account_dir, database_image(9))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reflink, "write_shared", fail)
    found = publish_image(account_dir, change_pages(database_image(9), [3], 1), share=True)
    assert "shares nothing with" in found.warnings[0]
    assert read_image(account_dir, found.snapshot) == change_pages(database_image(9), [3], 1)


def test_its_hashes_are_made_anew_where_they_are_lost(account_dir: AccountDir) -> None:
    snapshot = publish_image(account_dir, database_image(9)).snapshot
    found = page_hashes.read_page_hashes(account_dir, snapshot.live_image)
    assert found is not None
    assert found.hashes == native.hash_pages(database_image(9), PAGE)
    beside = account_dir.path / f"{snapshot.name}.pages"
    beside.chmod(0o600)
    beside.write_bytes(b"spoilt")
    assert "is not what was written" in page_hashes.find_problem(
        account_dir, account_dir.read_listing(), snapshot.live_image
    )
    publish_image(account_dir, database_image(9))
    assert (
        page_hashes.read_page_hashes(account_dir, snapshot.live_image),
        page_hashes.find_problem(account_dir, account_dir.read_listing(), snapshot.live_image),
    ) == (found, "")


def test_an_image_whose_file_is_gone_comes_back_with_the_same_from_the_database(
    account_dir: AccountDir,
) -> None:
    """That of a frozen database, which else no later run could publish a snapshot beside."""
    v1, v2 = "state.sqlite", "statev2.sqlite"
    images = {v1: database_image(9), v2: database_image(9, 1)}
    first = publish_images(account_dir, images, v2).snapshot
    frozen = first.image_of(v1)
    assert frozen is not None
    account_dir.remove_file(frozen.name + DATA)
    assert maintenance(account_dir, ALL).lasting_bytes() >= 0
    found = publish_images(account_dir, images | {v2: database_image(9, 2)}, v2)
    assert f"{frozen.name} no longer matched its checksum" in found.warnings[0]
    assert found.listing.names == account_dir.read_names()
    for snapshot in list_snapshots(account_dir):
        image = snapshot.image_of(v1)
        assert image is not None
        assert (account_dir.path / (image.name + DATA)).read_bytes() == images[v1]
