"""What lies beside a database and is on no list is told of by its name, on real folders, however full
and odd these are; what is saved, or comes again, is not."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.descriptors import leaves_no_file_open

from t3_backup.errors import WorkerLost
from t3_backup.t3 import unlisted
from t3_backup.t3.databases import LOCKS, MOST
from t3_backup.t3.files import KEPT_FILES
from t3_backup.worker import protocol
from t3_backup.worker.sources import Source


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """One that is opened as the worker opens it: not for reading."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_of_all_that_a_server_makes_nothing_is_told(folder: int, tmp_path: Path) -> None:
    for name in (*KEPT_FILES, "anonymous-id", "server-runtime.json"):
        (tmp_path / name).touch()
    for name in ("logs", "caches", "worktrees", ".v2-import-aB3xYz"):
        (tmp_path / name).mkdir()
    for name in (*LOCKS, "state.sqlite", "statev2.sqlite", "unknown.sqlite"):
        for ending in ("", "-wal", "-shm", "-journal"):
            (tmp_path / (name + ending)).touch()
    (tmp_path / "state.sqlite.replaced-20261124T033012Z-ab12").touch()
    (tmp_path / "state.sqlite.replaced-20261124T033012Z-ab12.files").mkdir()
    assert unlisted.unlisted(folder) == ()


def test_all_else_is_whatever_it_is(folder: int, tmp_path: Path) -> None:
    for name in ("plugins.json", "settings.json.bak", "a\nb", "state.sqlite3", "sqlite"):
        (tmp_path / name).touch()
    (tmp_path / "closed").touch(mode=0)
    (tmp_path / "folder.sqlite").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    with leaves_no_file_open():
        found = unlisted.unlisted(folder)
    assert found == (
        "a\nb", "closed", "folder.sqlite", "link", "pipe", "plugins.json", "settings.json.bak", "sqlite",
        "state.sqlite3",
    )  # fmt: skip


def test_of_thousands_the_first_few_are_told(folder: int) -> None:
    for number in range(3_000):
        os.close(os.open(f"{number:06}", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    tracemalloc.start()
    try:
        found = unlisted.unlisted(folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 15  # a list of them would take ten times as much
    assert found == tuple(f"{number:06}" for number in range(MOST))
    assert "000003, 000004 and at least 11 more: not saved; next: " in unlisted.explain(found)


def test_what_is_said_names_the_files_and_the_next_step() -> None:
    assert unlisted.explain(["plugins"]).startswith(
        "userdata also holds plugins: not saved; next: "
    )
    assert unlisted.explain(["a", "is fine; b"]).startswith('userdata also holds a, "is fine; b": ')
    assert " e and 2 more: not saved" in unlisted.explain(list("abcdefg"))


@pytest.mark.parametrize(
    "names",
    [["settings.json"], ["a/b"], [""], ["x" * 300], ["a"] * 17, [1], "a"],
    ids=["saved", "a path", "no name", "too long", "too many", "no text", "no list"],
)
def test_a_worker_that_names_what_cannot_be_is_not_believed(names: object) -> None:
    """Row 36."""
    line = protocol.encode_event(Source(1, 2)).replace(
        b'"unlisted": []', b'"unlisted": ' + json.dumps(names).encode()
    )
    with pytest.raises(WorkerLost):
        protocol.decode_event(line)


def test_names_of_any_bytes_arrive_and_nothing_in_them_is_obeyed() -> None:
    """Row 36."""
    odd = os.fsdecode(b"\xff\x1b[2J\n")
    assert protocol.decode_event(
        protocol.encode_event(Source(1, 2, (), (), ("plugins", odd)))
    ) == Source(1, 2, (), (), ("plugins", "??[2J?"))
