"""Which files of a folder are databases: by their names, on real folders,
however full and odd these are."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.descriptors import leaves_no_file_open

from t3_backup.errors import WorkerLost
from t3_backup.t3 import databases
from t3_backup.worker import protocol
from t3_backup.worker.sources import Source


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """One that is opened as the worker opens it: not for reading."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def fill(place: Path, *names: str) -> None:
    for name in names:
        (place / name).touch()


@pytest.mark.parametrize("name", databases.KNOWN)
def test_a_folder_in_the_place_of_t3s_own_is_told_of(
    folder: int, tmp_path: Path, name: str
) -> None:
    """Else its account would be one without a database."""
    (tmp_path / name).mkdir()
    assert databases.find_names(folder) == ([name], [])


def test_what_is_known_to_be_no_data_is_not_told_of(folder: int, tmp_path: Path) -> None:
    """Row 39."""
    fill(
        tmp_path,
        "state.sqlite",
        "state.sqlite-wal",
        "state.sqlite-shm",
        "statev2.sqlite-wal",
        "statev2.sqlite-shm",
    )
    fill(
        tmp_path,
        "server-lock.sqlite",
        "server-launcher-lock.sqlite",
        "server-database-access.sqlite",
    )
    fill(
        tmp_path,
        "state.sqlite.replaced-20261124T033012Z-ab12",
        "settings.json",
        "sqlite",
        "x.sqlite.bak",
    )
    (tmp_path / ".v2-import-aB3xYz").mkdir()
    fill(tmp_path / ".v2-import-aB3xYz", "snapshot.sqlite")
    (tmp_path / "folder.sqlite").mkdir()
    assert databases.find_names(folder) == (["state.sqlite"], [])


def test_all_else_that_ends_as_a_database_is(folder: int, tmp_path: Path) -> None:
    """Row 39."""
    fill(tmp_path, "state.sqlite", "statev3.sqlite", "statev2.sqlite", ".sqlite", "a\nb.sqlite")
    (tmp_path / "link.sqlite").symlink_to("nowhere")
    (tmp_path / "to-a-folder.sqlite").symlink_to("/")
    os.mkfifo(tmp_path / "pipe.sqlite")
    (tmp_path / "closed.sqlite").touch(mode=0)
    found, more = databases.find_names(folder)
    assert (found[:2], more) == (["state.sqlite", "statev2.sqlite"], [])
    assert sorted(found[2:]) == [
        ".sqlite", "a\nb.sqlite", "closed.sqlite", "link.sqlite", "pipe.sqlite", "statev3.sqlite", "to-a-folder.sqlite",
    ]  # fmt: skip


def test_of_thousands_the_first_few_are_told_and_t3_s_own_is_among_them(
    folder: int, tmp_path: Path
) -> None:
    for number in range(3_000):
        os.close(os.open(f"{number:06}.sqlite", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    fill(tmp_path, "statev2.sqlite")
    tracemalloc.start()
    try:
        found, more = databases.find_names(folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 15  # a list of them would take ten times as much
    most = databases.MOST
    names = [f"{number:06}.sqlite" for number in range(2 * most)]
    assert found == ["statev2.sqlite", *names[: most - 1]]
    assert more == names[most - 1 : 2 * most - 1]
    assert (
        databases.summary(more)
        == "000015.sqlite, 000016.sqlite, 000017.sqlite and at least 13 more are not backed up"
    )


def test_no_descriptor_is_left_open(folder: int) -> None:
    with leaves_no_file_open():
        databases.find_names(folder)


def test_what_is_said_names_the_file_and_the_next_step() -> None:
    assert databases.summary(["statev2.sqlite"]) == "statev2.sqlite is not backed up"
    assert (
        databases.summary(["a.sqlite", 'is fine; "b.sqlite'])
        == 'a.sqlite, "is fine; "b.sqlite" are not backed up'
    )
    assert databases.explain(["statev2.sqlite"]).startswith(
        "statev2.sqlite is not backed up: at most 16 databases of an account are copied; next: "
    )


def test_what_t3_has_open_elsewhere_is_explained_by_its_path() -> None:
    path = "/home/ann/.t3-dev/userdata/state.sqlite"
    assert databases.explain([path]) == (
        f"{path} is not backed up: T3 has it open; next: "
        "t3-backup-state doctor, which says what to type"
    )
    both = databases.explain(["zz.sqlite", path, "/x/y z"])
    assert both.startswith("zz.sqlite is not backed up: at most 16 databases of an account are ")
    assert f'; {path}, "/x/y z" are not backed up: T3 has them open; next: ' in both


@pytest.mark.parametrize(
    "names",
    [
        ["server-lock.sqlite"],
        ["passwd"],
        ["a/b.sqlite"],
        ["x" * 300 + ".sqlite"],
        ["a.sqlite"] * 17,
        [1],
        "a.sqlite",
    ],
    ids=[
        "a lock",
        "another ending",
        "a path",
        "too long",
        "too many",
        "no text",
        "no list",
    ],
)
def test_a_worker_that_names_what_cannot_be_is_not_believed(names: object) -> None:
    """Row 36."""
    line = protocol.encode_event(Source(1, 2)).replace(
        b'"others": []', b'"others": ' + json.dumps(names).encode()
    )
    with pytest.raises(WorkerLost):
        protocol.decode_event(line)


def test_names_of_any_bytes_arrive_and_nothing_in_them_is_obeyed() -> None:
    """Row 36."""
    odd = os.fsdecode(b"\xff\x1b[2J\n.sqlite")
    assert protocol.decode_event(
        protocol.encode_event(Source(1, 2, others=("statev2.sqlite", odd)))
    ) == Source(1, 2, others=("statev2.sqlite", "??[2J?.sqlite"))
