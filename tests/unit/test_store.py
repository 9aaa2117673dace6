"""The store: who may have one, what counts in it, and the order of steps that makes a snapshot
durable."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support import programs
from support.account_folders import clean_up, data_path, list_snapshots, publish_as, strays_of
from support.descriptors import leaves_no_file_open
from support.manifests import NOON, make_manifest
from support.paths import ROOT

from t3_backup.errors import StoreError
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.content import hash_content
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store
from t3_backup.system import native


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def account_dir(store: Store) -> Iterator[AccountDir]:
    opened = store.account_dir("alice", create=True)
    assert opened is not None
    with opened:
        yield opened


def publish(
    account_dir: AccountDir, sequence: int = 1, data: bytes = b"data", **changes: object
) -> Manifest:
    """A snapshot of a few bytes; the `sequence`th hour of the day."""
    snapshot = make_manifest(sequence, NOON + timedelta(hours=sequence), **changes)
    with account_dir.stage_file() as staged_file:
        os.write(staged_file.writer, data)
        staged_file.settle()
        content = hash_content(staged_file.reader)
        snapshot = snapshot.with_live(bytes=content.bytes, sha256=content.sha256)
        publish_as(account_dir, staged_file, snapshot)
    return snapshot


def names(account_dir: AccountDir) -> set[str]:
    return set(os.listdir(account_dir.fd))


# ---- the order of steps

# one of the catalog's two lines is always whole on the disk
NOTED = ["write catalog", "sync catalog"] * 2


def trace(tmp_path: Path, change: str) -> list[str]:
    """The system calls that a change (see `change_snapshot.py`) makes in an account folder with one
    snapshot, in words, in their order."""
    if shutil.which("strace") is None:
        pytest.skip("the order of system calls is seen by strace")
    log = tmp_path / "log"
    calls = "trace=write,pwrite64,fsync,fdatasync,sync_file_range,fcntl"
    calls += ",linkat,unlinkat,rename,renameat,renameat2"
    program = programs.line("change_snapshot.py", change, str(tmp_path / "store"), isolated=False)
    line = ["strace", "-y", "-qq", "-o", str(log), "-e", calls, *program]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = []
    _, _, rest = log.read_text().partition('"begin"')
    for text in rest.splitlines()[1:]:
        if "= -1 ENOENT" in text:  # nothing was there
            continue
        call = text.split("(")[0]
        name = re.search(r'"(state-[^"]*|\.partial-[^"]*)"(?:, (?:0|AT_SYMLINK_FOLLOW))?\)', text)
        if "/alice+catalog>" in text:
            found += {"pwrite64": ["write catalog"], "fsync": ["sync catalog"]}.get(call, [])
        elif call == "fsync":
            found.append(
                "sync folder" if re.match(r"fsync\(\d+<[^>]*/alice>", text) else "sync file"
            )
        elif call == "fcntl" and "F_SETLEASE" in text:
            found.append("lease")
        elif call == "write":
            found.append("write")
        elif name is not None:
            kind = {".json": "manifest", ".sqlite": "data"}.get(Path(name[1]).suffix, "partial")
            verb = {"linkat": "name", "unlinkat": "unlink"}.get(call, "rename to")
            found.append(f"{verb} {kind}")
    return found


def test_a_snapshot_is_sealed_then_its_manifest_is_named_and_its_data_last(
    account_dir: AccountDir, tmp_path: Path
) -> None:
    """Rows 27 and 28: every name is on the disk before the next one that relies on it is given."""
    publish(account_dir)
    steps = trace(tmp_path, "publish")
    assert steps == [
        *("write", "lease", "sync file"),
        *("write", "sync file", "name manifest", "sync folder"),
        *("name data", "sync folder"),
        *NOTED,
    ]


def test_removal_takes_the_data_first_and_the_manifest_once_that_is_on_the_disk(
    account_dir: AccountDir, tmp_path: Path
) -> None:
    """Rows 27, 28 and 61: data without a manifest would stay for ever, and what goes is let go."""
    publish(account_dir)
    assert trace(tmp_path, "remove") == [
        *NOTED,
        *("unlink data", "sync folder", "unlink manifest"),
        *NOTED,
    ]


def test_a_manifest_is_replaced_by_one_rename_of_a_synced_file(
    account_dir: AccountDir, tmp_path: Path
) -> None:
    """Row 27: there is no moment without a whole manifest."""
    publish(account_dir)
    steps = trace(tmp_path, "replace")
    assert steps == ["write", "sync file", "name partial", "rename to manifest", "sync folder"]


# ---- publishing


def test_what_is_published_is_read_back_newest_first(account_dir: AccountDir) -> None:
    first, second = publish(account_dir, 1, b"one"), publish(account_dir, 2, b"two")
    assert list_snapshots(account_dir) == [second, first]
    assert data_path(account_dir, first).read_bytes() == b"one"
    assert strays_of(account_dir) == []
    assert names(account_dir) == {
        f"{s.name}{ending}" for s in (first, second) for ending in (".json", ".sqlite")
    }
    assert account_dir.read_listing().used_stems() == {first.name, second.name}


def test_what_is_published_is_for_its_owners_eyes_alone(account_dir: AccountDir) -> None:
    publish(account_dir)
    assert {
        stat.S_IMODE((account_dir.path / name).stat().st_mode) for name in names(account_dir)
    } == {0o400}


def test_order_is_by_sequence_whatever_the_clock_said(account_dir: AccountDir) -> None:
    """Row 15."""
    late = publish(account_dir, 1)
    early = make_manifest(2, NOON - timedelta(days=3000))
    with account_dir.stage_file() as staged_file:
        staged_file.settle()
        publish_as(account_dir, staged_file, early)
    assert [snapshot.name for snapshot in list_snapshots(account_dir)] == [early.name, late.name]


def test_a_whole_snapshot_of_that_name_is_not_written_over(account_dir: AccountDir) -> None:
    """Row 27: its manifest is what is met first."""
    older = publish(account_dir, 1, b"older")
    with pytest.raises(FileExistsError):
        publish(account_dir, 1, b"newer")
    assert list_snapshots(account_dir) == [older]
    assert data_path(account_dir, older).read_bytes() == b"older"
    assert len(names(account_dir)) == 2


def test_data_of_that_name_is_not_written_over_and_gets_no_manifest(
    account_dir: AccountDir,
) -> None:
    """Row 27: the manifest that was named for nothing goes again."""
    path = data_path(account_dir, make_manifest(1, NOON + timedelta(hours=1)))
    path.write_bytes(b"older")
    with pytest.raises(FileExistsError):
        publish(account_dir, 1, b"newer")
    assert names(account_dir) == {path.name}
    assert path.read_bytes() == b"older"


def test_a_replaced_manifest_is_the_new_one_and_the_data_stays(account_dir: AccountDir) -> None:
    old = publish(account_dir, 1, b"one", verdict="suspect", reasons=("few rows",))
    new = replace(old, accepted_at="2026-11-24T12:00:00Z", verdict="verified")
    account_dir.replace_manifest(new)
    assert list_snapshots(account_dir) == [new]
    assert data_path(account_dir, new).read_bytes() == b"one"
    assert len(names(account_dir)) == 2


def test_a_replacement_that_fails_leaves_the_old_manifest(
    account_dir: AccountDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 29: its bytes can't be synced."""
    old = publish(account_dir)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(native, "sync_file", fail)
    with pytest.raises(OSError, match="Input/output"):
        account_dir.replace_manifest(replace(old, verdict="suspect"))
    assert list_snapshots(account_dir) == [old]
    assert len(names(account_dir)) == 2


def test_removing_one_leaves_the_others(account_dir: AccountDir) -> None:
    first, second = publish(account_dir, 1), publish(account_dir, 2)
    account_dir.remove_snapshot(first)
    assert list_snapshots(account_dir) == [second]
    assert len(names(account_dir)) == 2


# ---- what doesn't count

STRAYS = {
    "state-20261101T000000Z.sqlite": b"data without a manifest",
    "state-20261101-000000.sqlite": b"of the shell script of earlier days",
    "state-prebump-20261102-000000.sqlite": b"with its label",
}


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"format": 3}', b"\xff\xfe", None])
def test_strays_are_listed_and_never_removed(account_dir: AccountDir, broken: bytes | None) -> None:
    """Row 24: data without a manifest, of earlier days, or with a manifest that says nothing or
    something else."""
    good = publish(account_dir)
    files = dict(STRAYS)
    files["state-20261103T000000Z.sqlite"] = b"with a broken manifest"
    files["state-20261103T000000Z.json"] = (
        make_manifest(1, NOON).to_text().encode() if broken is None else broken
    )
    for name, data in files.items():
        (account_dir.path / name).write_bytes(data)
    assert list_snapshots(account_dir) == [good]
    assert strays_of(account_dir) == sorted(name for name in files if name.endswith(".sqlite"))
    clean_up(account_dir)
    assert {name: (account_dir.path / name).read_bytes() for name in files} == files
    assert list_snapshots(account_dir) == [good]


def test_a_manifest_that_is_a_symlink_is_not_followed(
    account_dir: AccountDir, tmp_path: Path
) -> None:
    """Row 18."""
    snapshot = publish(account_dir)
    manifest = account_dir.path / f"{snapshot.name}.json"
    manifest.rename(tmp_path / "elsewhere")
    manifest.symlink_to(tmp_path / "elsewhere")
    assert list_snapshots(account_dir) == []
    assert strays_of(account_dir) == [f"{snapshot.name}.sqlite"]


def test_clearing_takes_partial_files_and_manifests_without_data_and_nothing_else(
    account_dir: AccountDir,
) -> None:
    """Row 27: what an interrupted run can leave, and what it can't."""
    good = publish(account_dir)
    kept = {
        "notes.json",
        "state-nonsense.json",
        "readme",
        ".hidden",
        "state-20261101T000000Z.sqlite",
        "partial-1",
    }
    left = {".partial-0123456789abcdef"}
    for name in kept | left:
        (account_dir.path / name).touch()
    now = datetime.now(UTC)
    for sequence, label in ((7, None), (8, "label")):
        lonely = make_manifest(sequence, now, label)
        (account_dir.path / f"{lonely.name}.json").write_text(lonely.to_text())
    # Not ours to remove: one that cannot be read, and one that was brought back to the store ahead
    # of its data.
    kept |= {
        "state-20261104T000000Z.json",
        f"{make_manifest(9, now - timedelta(days=30)).name}.json",
    }
    (account_dir.path / "state-20261104T000000Z.json").touch()
    (account_dir.path / f"{make_manifest(9, now - timedelta(days=30)).name}.json").write_text(
        make_manifest(9, now - timedelta(days=30)).to_text()
    )
    clean_up(account_dir)
    assert names(account_dir) == kept | {f"{good.name}.json", f"{good.name}.sqlite"}


# ---- whose it is


def test_a_new_store_and_a_new_account_folder_are_private(
    store: Store, account_dir: AccountDir
) -> None:
    assert [stat.S_IMODE(path.stat().st_mode) for path in (store.path, account_dir.path)] == [
        0o700,
        0o700,
    ]
    assert store.users() == ["alice"]


def test_an_empty_folder_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    with Store.open(tmp_path / "store", create=True):
        assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
def test_a_folder_with_something_in_it_is_refused_and_left_as_it_is(
    tmp_path: Path, mode: int
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "something").touch()
    (tmp_path / "store").chmod(mode)
    with pytest.raises(StoreError, match="chmod 0700"):
        Store.open(tmp_path / "store", create=True)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == mode


def test_an_open_account_folder_is_refused(store: Store) -> None:
    (store.path / "alice").mkdir(mode=0o755)
    with pytest.raises(StoreError, match="open to others"):
        store.account_dir("alice", create=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_somebody_elses_store_or_account_folder_is_refused(store: Store) -> None:
    (store.path / "alice").mkdir(mode=0o700)
    os.chown(store.path / "alice", 65534, 65534)
    with pytest.raises(StoreError, match="belongs to uid 65534"):
        store.account_dir("alice")
    os.chown(store.path, 65534, 65534)
    with pytest.raises(StoreError, match="belongs to uid 65534"):
        Store.open(store.path, create=True)


def test_a_symlink_is_no_store_and_no_account_folder(store: Store, tmp_path: Path) -> None:
    """Row 18."""
    (tmp_path / "link").symlink_to(store.path)
    with pytest.raises(StoreError, match="symlink"):
        Store.open(tmp_path / "link", create=True)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (store.path / "alice").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symlink"):
        store.account_dir("alice", create=True)
    assert store.users() == []


def test_a_missing_store_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        Store.open(tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("user", ["..", ".", "", "a/b", "../alice", ".hidden"])
def test_a_name_that_is_no_user_has_no_account_folder(store: Store, user: str) -> None:
    """Row 18."""
    assert store.account_dir(user, create=True) is None
    assert os.listdir(store.fd) == []


def test_nobody_has_an_account_folder_unasked(store: Store) -> None:
    assert store.account_dir("alice") is None
    assert store.users() == []


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    with leaves_no_file_open(), Store.open(tmp_path / "store", create=True) as store:
        account_dir = store.account_dir("alice", create=True)
        assert account_dir is not None
        with account_dir:
            account_dir.remove_snapshot(publish(account_dir))
    (tmp_path / "store" / "bob").mkdir(mode=0o755)
    with leaves_no_file_open(), Store.open(tmp_path / "store") as store, pytest.raises(StoreError):
        store.account_dir("bob")
