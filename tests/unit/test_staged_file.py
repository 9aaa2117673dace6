"""A file before it has a name: settled only once nobody can write, and named never over another."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.descriptors import leaves_no_file_open

from t3_backup.errors import WorkerLost
from t3_backup.store import staged_file as blanks
from t3_backup.store.content import Content, hash_content, read_database_bytes
from t3_backup.store.staged_file import StagedFile

TEXT = b"SQLite format 3\0" + bytes(5000)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def without_unnamed_files(patch: pytest.MonkeyPatch) -> None:
    """To an older kernel O_TMPFILE means a folder opened for writing, which is EISDIR."""
    patch.setattr(blanks.os, "O_TMPFILE", os.O_DIRECTORY | os.O_RDWR)


@pytest.fixture(params=["unnamed", "partial"])
def staged_file(request: pytest.FixtureRequest, folder: int) -> Iterator[StagedFile]:
    """One of either way; the second is what a file system without O_TMPFILE gets."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "partial":
            without_unnamed_files(patch)
        made = StagedFile.create(folder, ".partial-1")
    with made:
        assert (made.partial is None) == (request.param == "unnamed")
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the last writer ends at once."""
    monkeypatch.setattr(blanks, "_LEASE_SECONDS", 0)


def test_it_is_roots_to_read_and_nobodys_to_write(staged_file: StagedFile) -> None:
    status = os.fstat(staged_file.writer)
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 0o400)


def test_the_reader_cannot_write(staged_file: StagedFile) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(staged_file.reader, b"x")


def test_settling_says_what_is_in_it(staged_file: StagedFile) -> None:
    os.write(staged_file.writer, TEXT)
    staged_file.settle()
    assert hash_content(staged_file.reader) == Content(len(TEXT), hashlib.sha256(TEXT).hexdigest())
    assert staged_file.writer == -1


def test_settling_twice_is_harmless(staged_file: StagedFile) -> None:
    os.write(staged_file.writer, TEXT)
    staged_file.settle()
    staged_file.settle()
    assert hash_content(staged_file.reader).bytes == len(TEXT)


@pytest.mark.usefixtures("impatient")
def test_a_second_writer_is_found_by_the_lease(staged_file: StagedFile) -> None:
    """Row 36: a descriptor that was passed on."""
    other = os.dup(staged_file.writer)
    with pytest.raises(WorkerLost, match="can still write"):
        staged_file.settle()
    os.close(other)
    staged_file.settle()


@pytest.mark.usefixtures("impatient")
def test_a_writable_descriptor_opened_by_its_own_path_is_found_too(staged_file: StagedFile) -> None:
    """Row 36: /proc/PID/fd."""
    if os.geteuid() != 0:
        os.fchmod(staged_file.writer, 0o600)
    other = os.open(f"/proc/self/fd/{staged_file.writer}", os.O_RDWR)
    with pytest.raises(WorkerLost, match="can still write"):
        staged_file.settle()
    os.close(other)


def test_once_it_is_settled_nobody_can_open_it_for_writing(staged_file: StagedFile) -> None:
    """Row 36: the lease is held through naming; and the attempt doesn't end the run, as the
    kernel's SIGIO would."""
    staged_file.settle()
    assert fcntl.fcntl(staged_file.reader, fcntl.F_GETSIG) == signal.SIGURG
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    with pytest.raises(BlockingIOError):
        os.open(f"/proc/self/fd/{staged_file.reader}", os.O_RDWR | os.O_NONBLOCK)


@pytest.mark.parametrize("mode", [0o600, 0o440, 0o4400])
def test_another_mode_is_refused(staged_file: StagedFile, mode: int) -> None:
    """Row 36: fchmod through the worker's descriptor."""
    os.fchmod(staged_file.writer, mode)
    with pytest.raises(WorkerLost, match="another owner, mode or name"):
        staged_file.settle()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_another_owner_is_refused(staged_file: StagedFile) -> None:
    """Row 36."""
    os.fchown(staged_file.writer, 65534, -1)
    with pytest.raises(WorkerLost, match="another owner, mode or name"):
        staged_file.settle()


def test_a_name_that_somebody_gave_it_is_refused(staged_file: StagedFile, folder: int) -> None:
    """Row 36: linkat through the worker's descriptor."""
    os.link(f"/proc/self/fd/{staged_file.writer}", "mine", dst_dir_fd=folder, follow_symlinks=True)
    with pytest.raises(WorkerLost, match="another owner, mode or name"):
        staged_file.settle()


def test_naming_gives_the_name_and_takes_the_partial_one_away(
    staged_file: StagedFile, tmp_path: Path
) -> None:
    os.write(staged_file.writer, TEXT)
    staged_file.settle()
    staged_file.name_as("whole")
    assert os.listdir(tmp_path) == ["whole"]
    assert (tmp_path / "whole").read_bytes() == TEXT


def test_an_existing_name_is_never_taken(staged_file: StagedFile, tmp_path: Path) -> None:
    """Row 27."""
    (tmp_path / "whole").write_bytes(b"older")
    staged_file.settle()
    with pytest.raises(FileExistsError):
        staged_file.name_as("whole")
    assert (tmp_path / "whole").read_bytes() == b"older"


def test_a_symlink_of_that_name_is_an_existing_name(
    staged_file: StagedFile, tmp_path: Path
) -> None:
    """Row 18."""
    (tmp_path / "whole").symlink_to(tmp_path / "elsewhere")
    staged_file.settle()
    with pytest.raises(FileExistsError):
        staged_file.name_as("whole")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("way", ["unnamed", "partial"])
def test_left_without_a_name_nothing_stays(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Row 19: only our own file goes; its descriptors go too."""
    (tmp_path / "other").touch()
    if way == "partial":
        without_unnamed_files(monkeypatch)
    with leaves_no_file_open(), StagedFile.create(folder, ".partial-1") as made:
        os.write(made.writer, TEXT)
        assert sorted(os.listdir(tmp_path)) == (
            ["other"] if way == "unnamed" else [".partial-1", "other"]
        )
    assert os.listdir(tmp_path) == ["other"]


@pytest.mark.parametrize("size", [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (9 << 20) + 7])
def test_the_hash_is_of_every_byte_and_the_offset_stays(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        os.lseek(file.fileno(), 3, os.SEEK_SET)
        assert hash_content(file.fileno()) == Content(size, hashlib.sha256(data).hexdigest())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 3


@pytest.mark.parametrize("page_size", [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
def test_the_header_says_how_large_a_database_is(tmp_path: Path, page_size: int) -> None:
    """Row 24: against files that SQLite itself made."""
    import sqlite3
    from contextlib import closing

    path = tmp_path / "database"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"PRAGMA page_size={page_size}; CREATE TABLE a (b); CREATE TABLE c (d)"
        )
    with path.open("rb") as file:
        assert read_database_bytes(file.fileno()) == path.stat().st_size == 3 * page_size


@pytest.mark.parametrize(
    "content",
    [b"", b"SQLite format 3\0", b"SQLite format 3\0" + bytes(83), b"SQLite format 2\0" + bytes(84)],
)
def test_what_has_no_header_has_no_size(tmp_path: Path, content: bytes) -> None:
    """Row 24."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert read_database_bytes(file.fileno()) is None
