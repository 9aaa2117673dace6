"""What counts as a -wal that SQLite goes on from: its header to the last byte, as SQLite itself
judges it."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from t3_backup.worker.child.checkpoint import is_wal_header

HEADER, FRAME_HEADER = 32, 24  # bytes


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose row is in its -wal alone, as a killed writer leaves it."""
    folder = tmp_path_factory.mktemp("wal")
    with closing(sqlite3.connect(folder / "live", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
        for ending in ("", "-wal"):
            shutil.copyfile(f"{folder}/live{ending}", f"{folder}/killed{ending}")
    return folder / "killed"


@pytest.fixture(
    scope="module",
    params=["as SQLite wrote it here", "as SQLite writes it on a machine of the other byte order"],
)
def wal(request: pytest.FixtureRequest, database: Path) -> bytes:
    """The whole -wal, in both byte orders of its checksums."""
    content = Path(f"{database}-wal").read_bytes()
    return content if request.param == "as SQLite wrote it here" else turned(content)


def sums(order: str, data: bytes, first: int = 0, second: int = 0) -> tuple[int, int]:
    """The checksum of sqlite.org/fileformat.html#walformat."""
    for even, odd in struct.iter_unpack(order + "II", data):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def turned(wal: bytes) -> bytes:
    """The same -wal with checksums in the other byte order, each frame's going on from the one
    before."""
    magic, _, page_bytes = struct.unpack(">III", wal[:12])
    order = "<" if magic & 1 else ">"
    out = struct.pack(">I", magic ^ 1) + wal[4:24]
    running = sums(order, out)
    out += struct.pack(">II", *running)
    for at in range(HEADER, len(wal), FRAME_HEADER + page_bytes):
        frame = wal[at : at + FRAME_HEADER + page_bytes]
        running = sums(order, frame[:8] + frame[FRAME_HEADER:], *running)
        out += frame[:16] + struct.pack(">II", *running) + frame[FRAME_HEADER:]
    return out


def rows(database: Path, wal: bytes, work: Path) -> int | str:
    """How many rows SQLite finds beside that -wal, or what it objects."""
    shutil.copyfile(database, work / "x")
    (work / "x-wal").write_bytes(wal)
    with closing(sqlite3.connect(work / "x")) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])
        except sqlite3.Error as error:
            return str(error)


def with_wrong_byte(wal: bytes, at: int, flip: int) -> bytes:
    return wal[:at] + bytes([wal[at] ^ flip]) + wal[at + 1 :]


def test_a_header_that_sqlite_goes_on_from_is_one(
    database: Path, wal: bytes, tmp_path: Path
) -> None:
    assert is_wal_header(wal[:HEADER])
    assert rows(database, wal, tmp_path) == 1


@pytest.mark.parametrize("flip", [1, 0x80, 0xFF])
@pytest.mark.parametrize("at", range(HEADER))
def test_a_header_with_one_wrong_byte_is_none(
    database: Path, wal: bytes, tmp_path: Path, at: int, flip: int
) -> None:
    """Row 8. SQLite passes over all that is behind it, and the old state would be sealed
    without."""
    wrong = with_wrong_byte(wal, at, flip)
    assert not is_wal_header(wrong[:HEADER])
    assert rows(database, wrong, tmp_path) != 1


@pytest.mark.parametrize("length", range(HEADER))
def test_a_part_of_a_header_is_none(wal: bytes, length: int) -> None:
    assert not is_wal_header(wal[:length])


def test_a_sound_header_of_another_version_is_none(
    database: Path, wal: bytes, tmp_path: Path
) -> None:
    """Its checksum is right, and SQLite does not open it all the same."""
    magic, version = struct.unpack(">II", wal[:8])
    header = struct.pack(">II", magic, version + 1) + wal[8:24]
    header += struct.pack(">II", *sums(">" if magic & 1 else "<", header))
    assert not is_wal_header(header)
    assert rows(database, header + wal[HEADER:], tmp_path) == "unable to open database file"


def test_zeros_are_none() -> None:
    assert not is_wal_header(bytes(HEADER))
