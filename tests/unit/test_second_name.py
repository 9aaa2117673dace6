"""A database with a second name: refused, but for the one that a killed import leaves for ever.

On real files, as a backup and as a restore look at them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.descriptors import leaves_no_file_open

from t3_backup.errors import SourceRefused
from t3_backup.worker.child import source
from t3_backup.worker.child.live_files import LiveFiles

UID = os.geteuid()
NAMES = ["state.sqlite", "statev2.sqlite"]


@pytest.fixture
def userdata(tmp_path: Path) -> Path:
    place = tmp_path / ".t3" / "userdata"
    place.mkdir(parents=True)
    return place


@pytest.fixture(params=[os.O_PATH, os.O_RDONLY], ids=["a backup's", "a restore's"])
def folder(userdata: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    fd = os.open(userdata, request.param | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def left(userdata: Path, name: str, folder: str = ".v2-import-aB3xYz") -> Path:
    """What a killed import leaves: the database, and the copy that it is a link to."""
    copy = userdata / folder / "snapshot.sqlite"
    copy.parent.mkdir()
    copy.write_bytes(b"SQLite")
    (userdata / name).hardlink_to(copy)
    return copy


def look(folder: int, userdata: Path, name: str) -> None:
    path = userdata / name
    source.require_own_file(path.lstat(), str(path), UID, folder)


@pytest.mark.parametrize("name", NAMES)
def test_the_second_name_that_a_killed_import_left_is_none(
    userdata: Path, folder: int, name: str
) -> None:
    left(userdata, name)
    with leaves_no_file_open():
        look(folder, userdata, name)
    (userdata / f"{name}-wal").touch()  # its own, as every live one has
    look(folder, userdata, name)


def test_it_is_found_among_the_leftovers_of_other_imports(userdata: Path, folder: int) -> None:
    for number in range(10):
        (userdata / f".v2-import-{number}").mkdir()
        (userdata / f".v2-import-{number}" / "snapshot.sqlite").touch()
    (userdata / ".v2-import-file").touch()
    (userdata / ".v2-import-link").symlink_to("/")
    left(userdata, "statev2.sqlite")
    look(folder, userdata, "statev2.sqlite")


def beside(ending: str) -> Callable[[Path], object]:
    def make(userdata: Path) -> None:
        left(userdata, "state.sqlite").with_name(f"snapshot.sqlite{ending}").touch()

    return make


def by_a_symlink(userdata: Path) -> None:
    copy = left(userdata, "state.sqlite", "elsewhere")
    (userdata / ".v2-import-aB3xYz").symlink_to(copy.parent)


def another_copy(userdata: Path) -> None:
    (userdata / "state.sqlite").write_bytes(b"SQLite")
    (userdata / "second.sqlite").hardlink_to(userdata / "state.sqlite")
    left(userdata, "statev2.sqlite")


def a_link_to_it(userdata: Path) -> None:
    (userdata / "state.sqlite").write_bytes(b"SQLite")
    (userdata / "second.sqlite").hardlink_to(userdata / "state.sqlite")
    (userdata / ".v2-import-aB3xYz").mkdir()
    (userdata / ".v2-import-aB3xYz" / "snapshot.sqlite").symlink_to(userdata / "state.sqlite")


OTHERS: dict[str, Callable[[Path], object]] = {
    "in another folder": lambda userdata: left(userdata, "state.sqlite", "v2-import-aB3xYz"),
    "of another name in it": lambda userdata: left(userdata, "state.sqlite").rename(
        userdata / ".v2-import-aB3xYz" / "other.sqlite"
    ),
    "in a folder of it": lambda userdata: (
        left(userdata, "state.sqlite", ".v2-import-aB3xYz").parent.rename(userdata / "aside"),
        (userdata / ".v2-import-aB3xYz").mkdir(),
        (userdata / "aside").rename(userdata / ".v2-import-aB3xYz" / "deeper"),
    ),
    "with a -wal": beside("-wal"),
    "with a -shm": beside("-shm"),
    "with a -journal": beside("-journal"),
    "by a symlink to its folder": by_a_symlink,
    "of another database": another_copy,
    "a symlink to it": a_link_to_it,
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_any_other_second_name_is_refused(
    userdata: Path, folder: int, make: Callable[[Path], object]
) -> None:
    """Row 11."""
    make(userdata)
    refused = rf"^{userdata}/state.sqlite has 2 names \(hard links\); its -wal can belong to only"
    with leaves_no_file_open(), pytest.raises(SourceRefused, match=refused):
        look(folder, userdata, "state.sqlite")


def test_a_third_name_is_refused(userdata: Path, folder: int) -> None:
    """Row 11."""
    copy = left(userdata, "state.sqlite")
    (userdata / "third").hardlink_to(copy)
    with pytest.raises(SourceRefused, match=r"has 3 names \(hard links\)"):
        look(folder, userdata, "state.sqlite")


@pytest.mark.skipif(UID != 0, reason="needs root: a folder of another's")
def test_a_folder_of_another_s_is_none_that_an_import_left(userdata: Path, folder: int) -> None:
    """Row 11."""
    os.chown(left(userdata, "state.sqlite").parent, 65534, 65534)
    with pytest.raises(SourceRefused, match="has 2 names"):
        look(folder, userdata, "state.sqlite")


def test_more_folders_than_are_looked_into_end_in_a_refusal(
    userdata: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(userdata, "state.sqlite")
    monkeypatch.setattr(source, "_MOST_IMPORTS", 0)
    with pytest.raises(SourceRefused, match="has 2 names"):
        look(folder, userdata, "state.sqlite")


def test_a_backup_and_a_restore_take_it_for_the_live_one(userdata: Path, tmp_path: Path) -> None:
    left(userdata, "state.sqlite")
    found = source.find_database(str(tmp_path), UID)
    os.close(found.folder)
    assert found.path == str(userdata / "state.sqlite")
    place = LiveFiles.open(str(tmp_path), UID)
    try:
        assert place.identity("state.sqlite") is not None
    finally:
        os.close(place.folder)
