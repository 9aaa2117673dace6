"""What is put in place beside a database takes the place of nothing that is not moved aside first."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from t3_backup.system import native
from t3_backup.worker.child import archive_install
from t3_backup.worker.child.archive_install import install_archive, rename
from t3_backup.worker.child.live_files import LiveFiles

ASIDE = "state.sqlite.replaced-x"
NEW, OLD = f"{ASIDE}.files/new", f"{ASIDE}.files/old"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LiveFiles]:
    for folder in (NEW, OLD):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / NEW / "settings.json").write_text("new")
    (tmp_path / "settings.json").write_text("old")
    opened = LiveFiles.open(str(tmp_path.parent), os.geteuid(), tmp_path.name)
    yield opened
    os.close(opened.folder)


def test_nothing_is_ever_moved_over_another(place: LiveFiles, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        rename(place, f"{NEW}/settings.json", "settings.json")
    assert (tmp_path / "settings.json").read_text() == "old"


def test_what_somebody_makes_in_between_goes_aside_as_well(
    place: LiveFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter(("made in between",))

    def rename_late(place: LiveFiles, source: str, target: str) -> None:
        if source.startswith(NEW) and (text := next(made, "")):
            (tmp_path / target).write_text(text)
        rename(place, source, target)

    monkeypatch.setattr(archive_install, "rename", rename_late)
    assert install_archive(place, ASIDE).missing == ()
    assert (tmp_path / "settings.json").read_text() == "new"
    aside = {path.name: path.read_text() for path in (tmp_path / OLD).iterdir()}
    assert aside == {"settings.json": "old", "settings.json.1": "made in between"}


def test_a_file_system_that_knows_no_such_move_is_no_reason_to_fail(
    place: LiveFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(native, "rename_noreplace", refuse)
    assert install_archive(place, ASIDE).missing == ()
    assert (tmp_path / "settings.json").read_text() == "new"
    assert (tmp_path / OLD / "settings.json").read_text() == "old"
