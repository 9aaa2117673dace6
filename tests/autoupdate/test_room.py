"""How much room another version takes: forecast from the newest that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from t3_backup.autoupdate.programs import room
from t3_backup.autoupdate.programs.installations import About, Installations
from t3_backup.autoupdate.programs.package_tree import measure_tree

GIB = 1 << 30


def install(installations: Installations, version: str, size: int) -> None:
    """A version that takes so many bytes."""
    folder = installations.begin_version()
    (folder / "bin").mkdir()
    (folder / "bin/t3").write_bytes(b"x" * size)
    (folder / "bin/t3").chmod(0o755)
    installations.finish_version(folder, About(version, "a test"))


@pytest.mark.parametrize(
    ("size", "together", "expected"),
    [
        (0, True, (GIB, GIB)),
        (518_000_000, True, (1_295_000_000, 1_813_000_000)),
        (518_000_000, False, (1_295_000_000, GIB)),
    ],
)
def test_room_grows_with_the_last_version_and_is_never_under_a_gib(
    size: int, together: bool, expected: tuple[int, int]
) -> None:
    assert room.forecast_bytes(size, together=together) == expected


def test_the_newest_version_on_the_disk_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installations = Installations(tmp_path / "root")
    monkeypatch.setattr(room, "_LEAST_BYTES", 0)
    monkeypatch.setattr(room, "FETCHED_IN", tmp_path / "not there yet")
    assert room.version_room(installations) == {installations.root: 0}
    install(installations, "0.0.10", 2 << 20)
    install(installations, "0.0.9", 9 << 20)
    size = measure_tree(installations.prefix("0.0.10"))
    assert 2 << 20 <= size < 3 << 20
    assert room.version_room(installations) == {installations.root: size + int(2.5 * size)}
    monkeypatch.setattr(room, "FETCHED_IN", Path("/proc"))
    assert room.version_room(installations) == {
        installations.root: size,
        Path("/proc"): int(2.5 * size),
    }
