"""Which file it is, and whether anything was done to it since it was seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from t3_backup.records import decode_record
from t3_backup.system.file_identity import FileIdentity


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(10**9, 10**9))
    return path


def rewrite(path: Path) -> None:
    """Other content of the same length, and the time set back: the change time tells."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=times)


def replace(path: Path) -> None:
    """Another file with the same content and times."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)


CHANGES: list[Callable[[Path], object]] = [
    rewrite,
    replace,
    lambda path: path.write_bytes(b"more content"),
    lambda path: path.chmod(0o600),
    os.utime,
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_done_to_a_file_makes_it_another_one(
    file: Path, change: Callable[[Path], object]
) -> None:
    before = FileIdentity.of(file.stat())
    assert FileIdentity.of(file.stat()) == before
    change(file)
    assert FileIdentity.of(file.stat()) != before


def test_a_file_holds_the_same_whatever_its_name_and_mode_and_another_does_not(file: Path) -> None:
    before = FileIdentity.of(file.stat())
    file.chmod(0o600)
    moved = file.rename(file.with_name("moved"))
    assert FileIdentity.of(moved.stat()).holds_the_same(before)
    moved.write_bytes(b"CONTENT")
    assert not FileIdentity.of(moved.stat()).holds_the_same(before)


def test_what_is_written_down_is_read_back_as_the_same(file: Path) -> None:
    seen = FileIdentity.of(file.stat())
    assert decode_record(FileIdentity, asdict(seen)) == seen


GOOD = asdict(FileIdentity(1, 2, 3, 4, 5, 6, 7))


@pytest.mark.parametrize(
    "value",
    [None, [], "x", {}, GOOD | {"more": 1}, {"inode": 2}]
    + [
        GOOD | {"inode": odd}
        for odd in (-1, 1 << 64, 10**400, 1.0, True, None, "2", [2], float("nan"))
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_identity_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON object|is no key|there is no|inode: "):
        decode_record(FileIdentity, value)
