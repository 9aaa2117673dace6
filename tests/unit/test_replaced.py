"""What a restore has replaced is removed as deep as it is, and never beyond a mount."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.filesystems import immutable

from t3_backup.worker.child.archive_walk import take_inventory
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.replaced import remove_replaced
from t3_backup.worker.operations.archive import Remains, RemoveReplaced

ASIDE = "state.sqlite.replaced-x"
OLD = f"{ASIDE}.files/old"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LiveFiles]:
    (tmp_path / OLD / "attachments").mkdir(parents=True)
    (tmp_path / OLD / "attachments/a.png").write_text("a")
    opened = LiveFiles.open(str(tmp_path.parent), os.geteuid(), tmp_path.name)
    yield opened
    os.close(opened.folder)


def seal(place: LiveFiles) -> dict[str, str]:
    """The marks of what is there now."""
    old = os.open(f"{place.folder_path}/{OLD}", os.O_RDONLY | os.O_DIRECTORY)
    found = take_inventory(old, place.uid)
    os.close(old)
    assert found is not None
    return dict(mark.rsplit("=", 1) for mark in found.describe(unchanged=False).sealed)


def remove(place: LiveFiles, sealed: dict[str, str] | None = None) -> Remains:
    """Remove it as it would be had it been `sealed` so, or else as it is."""
    marks = seal(place) if sealed is None else sealed
    return remove_replaced(place, RemoveReplaced(ASIDE, True, marks), lambda _: None)


def test_folders_in_folders_are_removed_with_few_open_files(place: LiveFiles) -> None:
    deep = Path(place.folder_path, OLD, "attachments", *["folder"] * 200)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    for path in list(deep.parents)[:3]:
        path.chmod(0o500)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))  # as a worker has it
    try:
        assert remove(place) == Remains((), ())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.listdir(place.folder) == []


def test_what_was_rewritten_in_place_stays_though_its_size_and_time_are_as_before(
    place: LiveFiles,
) -> None:
    file = Path(place.folder_path, OLD, "attachments/a.png")
    sealed, before = seal(place), file.stat()
    file.write_text("b")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert remove(place, sealed).left == (f"{ASIDE}.files/old",)
    assert file.read_text() == "b"


def test_what_is_not_of_the_old_state_is_not_told_as_a_part_of_it(place: LiveFiles) -> None:
    Path(place.folder_path, f"{ASIDE}.probe").touch()
    Path(place.folder_path, f"{ASIDE}.secrets").mkdir()
    assert remove(place).left == (f"{ASIDE}.secrets",)


def test_what_cannot_be_removed_costs_the_rest_nothing(place: LiveFiles) -> None:
    folder = Path(place.folder_path, OLD, "attachments")
    fixed = [folder / name for name in ("b.png", "inner/c.png")]
    for path in (*fixed, folder / "c.png", folder / "inner/d.png"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    gone = Path(place.folder_path, f"{ASIDE}.files/gone")
    with immutable(*fixed, within=Path(place.folder_path)):
        found = remove(place)
    assert sorted(path.name for path in gone.rglob("*.png")) == ["b.png", "c.png"]
    assert found.left == (f"{ASIDE}.files/gone",)
    assert "if it is immutable: chattr -R -i" in found.reasons[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="who mounts is root")
def test_what_is_mounted_in_it_is_not_emptied(place: LiveFiles, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "theirs").write_text("theirs")
    inside = Path(place.folder_path, OLD, "attachments/shared")
    inside.mkdir()
    if subprocess.run(["mount", "--bind", elsewhere, inside], check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        found = remove(place)
    finally:
        subprocess.run(["umount", "-l", *tmp_path.rglob("shared")], check=True)
    assert found.left == (f"{ASIDE}.files/gone",)
    assert "umount it first" in found.reasons[0]
    assert (elsewhere / "theirs").read_text() == "theirs"
