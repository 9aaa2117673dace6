"""How much npm may add to the disk, and what of the machine it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from t3_backup.autoupdate.programs import npm_cell
from t3_backup.autoupdate.programs.npm_cell import Room, why_too_much

GIB = 1 << 30


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (Room(100 * GIB, 9_000_000), Room(97 * GIB, 8_600_000), ""),
        (Room(100 * GIB, 9_000_000), Room(95 * GIB, 9_000_000), "more than 4096 MiB"),
        (Room(100 * GIB, 9_000_000), Room(100 * GIB, 8_400_000), "more than 500000 files"),
        # it never gets all that is left
        (Room(GIB, 1000), Room(GIB // 20, 1000), "more than 921 MiB"),
        (Room(GIB, 1000), Room(GIB, 50), "more than 900 files"),
        (Room(GIB, 0), Room(GIB, 0), ""),  # a file system that counts no inodes
        (Room(GIB, 10), Room(2 * GIB, 20), ""),
    ],
)
def test_npm_may_add_so_much_and_never_all_that_is_left(before: Room, now: Room, why: str) -> None:
    gone = Room(before.bytes - now.bytes, before.files - now.files)
    found = why_too_much(before, now, lambda: gone)
    assert why in found
    assert bool(found) is bool(why)


def test_what_others_write_to_that_disk_is_not_npms() -> None:
    before = Room(100 * GIB, 9_000_000)
    now = Room(90 * GIB, 8_000_000)
    assert why_too_much(before, now, lambda: Room(GIB, 400_000)) == ""
    assert "MiB" in why_too_much(before, now, lambda: Room(9 * GIB, 400_000))
    assert "files" in why_too_much(before, now, lambda: Room(GIB, 600_000))


def test_a_file_without_a_name_counts_once_nearly_all_has_gone() -> None:
    before = Room(100 * GIB, 9_000_000)
    assert "MiB" in why_too_much(before, Room(9 * GIB, 9_000_000), lambda: Room(0, 0))
    assert "files" in why_too_much(before, Room(100 * GIB, 800_000), lambda: Room(0, 0))


def test_what_was_written_since_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = iter([Room(GIB, 1000), Room(GIB, 1000), Room(0, 1000)])
    monkeypatch.setattr(npm_cell, "_read_room", lambda _: next(rooms))
    watch = npm_cell.watch_room(tmp_path)
    assert watch() == ""
    assert watch() == "it took more than 921 MiB of the disk"


def test_what_a_folder_holds_is_measured_and_no_link_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "of npm"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "x").write_bytes(b"\1" * 3_000_000)
    (folder / "out").symlink_to("/usr")
    found = npm_cell._measure(folder)
    assert 3_000_000 <= found.bytes < 4_000_000
    assert found.files == 5


@pytest.mark.parametrize(
    ("real", "shown"),
    [
        ("/usr/lib/node_modules/npm/bin/npm-cli.js", []),
        ("opt/node/lib/node_modules/npm/bin/npm-cli.js", ["opt/node"]),
        ("opt/node/bin/node", ["opt/node"]),
    ],
)
def test_a_node_that_is_installed_elsewhere_is_in_the_cell_with_its_prefix(
    real: str, shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npm_cell.shutil, "which", lambda *_, **__: str(tmp_path / real))
    assert npm_cell.outside_of_usr("node") == [str(tmp_path / one) for one in shown]
