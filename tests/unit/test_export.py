"""A snapshot in a file elsewhere: durable before it has its name, and never in the place of
something that is there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.account_folders import publish_as
from support.descriptors import leaves_no_file_open
from support.manifests import make_manifest

from t3_backup.errors import Failure, UsageError
from t3_backup.history import verify
from t3_backup.history.verify import Finding
from t3_backup.restore import export
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store
from t3_backup.system import native
from t3_backup.worker.limits import Limits

DATA = os.urandom(200_000)
LIMITS = Limits(60, 60, 0, 0, lambda: 1 << 40)


@pytest.fixture
def account_dir(tmp_path: Path) -> Iterator[AccountDir]:
    with Store.open(tmp_path / "store", create=True) as store:
        opened = store.account_dir("alice", create=True)
        assert opened is not None
        with opened:
            yield opened


@pytest.fixture
def snapshot(account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """One that verifies: the proof itself takes an account, and is tested with real ones."""
    monkeypatch.setattr(verify, "verify_bytes", lambda *_: Finding())
    with account_dir.stage_file() as staged_file:
        os.write(staged_file.writer, DATA)
        staged_file.settle()
        content = hash_content(staged_file.reader)
        sealed = make_manifest(1, bytes=content.bytes, sha256=content.sha256)
        publish_as(account_dir, staged_file, sealed)
    return sealed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def write(account_dir: AccountDir, snapshot: Manifest, path: Path) -> None:
    export.export_database(account_dir, snapshot.live_image, path, LIMITS, threading.Event())


def test_it_is_the_snapshot_and_its_owners_alone(
    account_dir: AccountDir, snapshot: Manifest, folder: Path
) -> None:
    write(account_dir, snapshot, folder / "a.sqlite")
    assert (folder / "a.sqlite").read_bytes() == DATA
    assert (folder / "a.sqlite").stat().st_mode & 0o7777 == 0o600
    assert os.listdir(folder) == ["a.sqlite"]


def test_a_place_is_where_one_stands(
    account_dir: AccountDir, snapshot: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for name in ("plain", "./dotted", "../out/back"):
        write(account_dir, snapshot, Path(name))
    assert set(os.listdir(folder)) == {"plain", "dotted", "back"}


def test_it_is_durable_before_it_has_its_name(
    account_dir: AccountDir, snapshot: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(native, "sync_file", lambda *_: calls.append(("file", os.listdir(folder))))
    monkeypatch.setattr(
        native, "sync_directory", lambda *_: calls.append(("folder", os.listdir(folder)))
    )
    write(account_dir, snapshot, folder / "a")
    assert calls == [("file", []), ("folder", ["a"])]


def file(path: Path) -> None:
    path.write_text("mine")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("there", [file, dangling, directory, os.mkfifo])
def test_nothing_that_is_there_is_written_to(
    account_dir: AccountDir,
    snapshot: Manifest,
    folder: Path,
    there: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 10. It is refused before anything is proven, which may take minutes."""
    monkeypatch.delattr(verify, "verify_bytes")
    there(folder / "a")
    before = (folder / "a").lstat()
    with pytest.raises(UsageError, match="nothing is overwritten"):
        write(account_dir, snapshot, folder / "a")
    assert (folder / "a").lstat() == before
    assert os.listdir(folder) == ["a"]


def test_what_comes_while_it_is_written_is_not_written_over(
    account_dir: AccountDir, snapshot: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 10. Between the look and the name."""
    copy = native.copy

    def copied_and_then(*args: int) -> object:
        (folder / "a").write_text("mine")
        return copy(*args)

    monkeypatch.setattr(native, "copy", copied_and_then)
    with pytest.raises(UsageError, match="nothing is overwritten"):
        write(account_dir, snapshot, folder / "a")
    assert (folder / "a").read_text() == "mine"
    assert os.listdir(folder) == ["a"]


@pytest.mark.parametrize(
    ("place", "why"),
    [("none/a", "No such file"), ("link/a", "symlink"), ("file/a", "Not a directory")],
)
def test_a_folder_that_can_t_be_reached_is_wrong_use(
    account_dir: AccountDir, snapshot: Manifest, folder: Path, place: str, why: str
) -> None:
    """In a home its owner may put a symlink there meanwhile."""
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    (folder / "file").touch()
    with pytest.raises(UsageError, match=why) as caught:
        write(account_dir, snapshot, folder / place)
    assert str(folder / place) in str(caught.value)
    assert os.listdir(folder / "real") == []


@pytest.mark.parametrize("place", ["/", "/.."])
def test_a_place_without_a_name_is_wrong_use(
    account_dir: AccountDir, snapshot: Manifest, place: str
) -> None:
    with pytest.raises(UsageError):
        write(account_dir, snapshot, Path(place))


def test_what_does_not_verify_is_not_written(
    account_dir: AccountDir, snapshot: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "verify_bytes", lambda *_: Finding(("another SHA-256",)))
    with pytest.raises(Failure, match="does not verify and is not written: another SHA-256"):
        write(account_dir, snapshot, folder / "a")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("step", ["copy", "sync_file"])
def test_where_it_cannot_be_written_nothing_is_left(
    account_dir: AccountDir,
    snapshot: Manifest,
    folder: Path,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, step, full)
    said = f"--to {folder}/a: No space left on device; nothing was written"
    with leaves_no_file_open(), pytest.raises(Failure, match=said):
        write(account_dir, snapshot, folder / "a")
    assert os.listdir(folder) == []
