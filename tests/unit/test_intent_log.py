"""What a restore is about to do is on the disk before it does it: whole, or the one before; and
gone when it has ended."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import programs

from t3_backup.errors import StoreError, explain
from t3_backup.restore import intent_log
from t3_backup.restore.intent_log import Intent
from t3_backup.store import outside
from t3_backup.store.replacement import Replacement
from t3_backup.store.store import Store
from t3_backup.system import atomic_file, native
from t3_backup.system.file_identity import FileIdentity

PLAN = Intent("alice", "state-20261124T033012Z", "2026-11-24T09:00:00Z", ".replaced-x")
OLD = FileIdentity(1, 2, 3, 4, 5, 6, 7)
WHOLE = replace(
    PLAN,
    unit="t3-serve@alice.service",
    ran=True,
    begun=True,
    databases=(
        Replacement("state.sqlite", OLD, replace(OLD, inode=8), ("-wal",), True),
        Replacement("statev2.sqlite", OLD, None),
    ),
    files=True,
    sealed={"secrets": "5f0c", "settings.json": "e1"},
)
NAME = "alice+restore.json"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.mark.parametrize("plan", [PLAN, WHOLE], ids=["begun", "exchanging"])
def test_what_is_saved_is_loaded_as_the_same(store: Store, plan: Intent) -> None:
    plan.save(store)
    assert intent_log.load_intent(store, "alice") == plan
    assert (store.path / NAME).stat().st_mode & 0o7777 == 0o600


def test_saving_again_replaces_it_and_leaves_nothing_else(store: Store) -> None:
    PLAN.save(store)
    WHOLE.save(store)
    assert intent_log.load_intent(store, "alice") == WHOLE
    assert os.listdir(store.path) == [NAME]


def test_each_user_has_their_own_and_no_other_name_is_one(store: Store) -> None:
    for user in ("bob", "alice"):
        replace(PLAN, user=user).save(store)
    for name in (
        "+restore.json",
        "a b+restore.json",
        "-x+restore.json",
        "carol+old",
        "dora+restore.json.new",
        "attempts.json",
    ):
        (store.path / name).touch()
    (store.path / "alice").mkdir(mode=0o700)
    assert intent_log.users_with_intent(store) == ["alice", "bob"]
    assert intent_log.load_intent(store, "carol") is None


def test_what_has_ended_is_gone(store: Store) -> None:
    PLAN.save(store)
    PLAN.remove(store)
    assert intent_log.users_with_intent(store) == os.listdir(store.path) == []


def test_it_is_durable_before_it_has_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content first, then the name, then the folder: else a power cut may leave a name with
    nothing behind it."""
    calls: list[str] = []

    def sync_file(fd: int, path: str) -> None:
        calls.append(f"file of {os.fstat(fd).st_size > 0}, {NAME in os.listdir(store.path)}")

    monkeypatch.setattr(native, "sync_file", sync_file)
    monkeypatch.setattr(
        native,
        "sync_directory",
        lambda *_: calls.append(f"folder, {NAME in os.listdir(store.path)}"),
    )
    PLAN.save(store)
    PLAN.remove(store)
    assert calls == ["file of True, False", "folder, True", "folder, False"]


def test_where_it_cannot_be_written_the_one_before_stays_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    PLAN.save(store)
    monkeypatch.setattr(native, "sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        WHOLE.save(store)
    assert intent_log.load_intent(store, "alice") == PLAN
    assert os.listdir(store.path) == [NAME]


def test_a_writer_that_is_killed_leaves_the_one_before_and_what_can_be_cleared(
    store: Store,
) -> None:
    PLAN.save(store)
    done = subprocess.run(
        programs.line("die_in_intent.py", str(store.path), isolated=False),
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(store.path)) == 2
    assert intent_log.load_intent(store, "alice") == PLAN
    assert intent_log.users_with_intent(store) == ["alice"]
    intent_log.clear_intent(store)
    assert os.listdir(store.path) == [NAME]


def test_clearing_takes_only_what_was_being_written(store: Store) -> None:
    kept = {NAME, "attempts.json", "alice+old", "alice"}
    PLAN.save(store)
    (store.path / "attempts.json").touch()
    for folder in ("alice+old", "alice"):
        (store.path / folder).mkdir()
    (store.path / ".partial-1").touch()
    intent_log.clear_intent(store)
    assert set(os.listdir(store.path)) == kept


def saved(store: Store) -> dict[str, object]:
    """The document of WHOLE."""
    WHOLE.save(store)
    document: dict[str, object] = json.loads((store.path / NAME).read_text())
    return document


BROKEN: dict[str, bytes | dict[str, object]] = {
    "empty": b"",
    "cut off": b'{"format": 1, "user": "alice"',
    "not text": b"\xff\xfe\x00",
    "too deep": b"[" * 100_000,
    "a list": b"[]",
    "a later format": {"format": 3},
    "another's": {"user": "bob"},
    "a strange file": {"databases": [{"file": "state.sqlite", "old": {"inode": -1}}]},
    "no file": {"databases": ["x"]},
    "no database": {"databases": [{"file": "../x", "old": None, "staged": None}]},
    "no marks": {"sealed": ["secrets"]},
    "no texts as marks": {"sealed": {"secrets": 1}},
}


@pytest.mark.parametrize("how", BROKEN)
def test_one_that_cannot_be_read_is_one_line_that_says_where_and_what_to_do(
    store: Store, how: str
) -> None:
    whole, broken = saved(store), BROKEN[how]
    (store.path / NAME).write_bytes(
        broken if isinstance(broken, bytes) else json.dumps(whole | broken).encode()
    )
    with pytest.raises(StoreError) as caught:
        intent_log.load_intent(store, "alice")
    assert str(store.path / NAME) in str(caught.value)
    assert "look at it, then remove it" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert intent_log.users_with_intent(store) == ["alice"], "it is not forgotten"


@pytest.mark.parametrize("field", ["user", "snapshot", "aside", "begun", "databases", "sealed"])
def test_one_without_a_field_is_broken(store: Store, field: str) -> None:
    whole = saved(store)
    del whole[field]
    (store.path / NAME).write_text(json.dumps(whole))
    with pytest.raises(StoreError):
        intent_log.load_intent(store, "alice")


# As 0.1.0 wrote it, and as the version after it did, at the exchange.
RELEASED = json.loads("""{
 "format": 1, "user": "alice", "snapshot": "state-20261124T033012Z",
 "began": "2026-11-24T09:00:00Z", "aside": "state.sqlite.replaced-x",
 "unit": "t3-serve@alice.service", "ran": true, "masked": false, "marked": false, "begun": true,
 "old": {"device": 1, "inode": 2, "bytes": 3, "modified_ns": 4, "changed_ns": 5, "mode": 6, "gid": 7},
 "staged": {"device": 1, "inode": 8, "bytes": 3, "modified_ns": 4, "changed_ns": 5, "mode": 6, "gid": 7},
 "beside": ["-wal"], "keep": true, "database": true, "files": true, "keep_files": false
}""")
BEFORE = {key: value for key, value in RELEASED.items() if key != "keep_files"} | {
    "sealed": {"secrets": "5f0c", "settings.json": "e1"}
}


def load(store: Store, document: dict[str, object]) -> Intent | None:
    (store.path / NAME).write_text(json.dumps(document))
    return intent_log.load_intent(store, "alice")


def test_one_of_format_1_is_of_the_one_database_that_there_was(store: Store) -> None:
    expected = replace(WHOLE, databases=WHOLE.databases[:1])
    assert load(store, BEFORE) == expected
    assert load(store, RELEASED) == replace(expected, sealed={}), "it takes nothing away"
    assert load(store, BEFORE | {"database": False}) == replace(WHOLE, databases=())


def test_one_of_format_1_that_is_about_to_stage_says_what_to_remove(store: Store) -> None:
    early = BEFORE | {"old": None, "staged": None, "beside": [], "keep": False, "begun": False}
    plan = load(store, early)
    assert plan is not None
    assert [one.file + plan.aside for one in plan.databases] == [RELEASED["aside"]]
    assert plan.staged_files == RELEASED["aside"]


@pytest.mark.parametrize("key", ["old", "staged", "beside", "keep", "database", "aside", "sealed"])
def test_one_of_format_1_without_a_key_of_it_is_broken(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="look at it, then remove it"):
        load(store, {name: value for name, value in BEFORE.items() if name != key})


@pytest.mark.parametrize("aside", ["elsewhere", 1, None])
def test_one_of_format_1_with_a_name_of_nothing_is_broken(store: Store, aside: object) -> None:
    with pytest.raises(StoreError):
        load(store, BEFORE | {"aside": aside})


def test_a_field_of_a_later_version_is_passed_over(store: Store) -> None:
    (store.path / NAME).write_text(json.dumps(saved(store) | {"later": 1}))
    assert intent_log.load_intent(store, "alice") == WHOLE


def test_a_symlink_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(json.dumps(saved(store)))
    (store.path / NAME).unlink()
    (store.path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=re.escape(str(store.path / NAME))):
        intent_log.load_intent(store, "alice")


def full(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store take nothing more; what is outside of it does."""
    whole = atomic_file.replace_file

    def refuse(folder: int, *words: Any, **more: Any) -> None:
        if os.path.samestat(os.fstat(folder), os.fstat(store.fd)):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(folder, *words, **more)

    monkeypatch.setattr(intent_log, "replace_file", refuse)


def test_where_the_store_takes_nothing_more_it_lies_outside_and_is_the_newer_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    PLAN.save(store)
    with monkeypatch.context() as patched:
        full(store, patched)
        WHOLE.save(store)
    path = str(store.path.absolute())
    assert intent_log.load_intent(store, "alice") == replace(WHOLE, store=path)
    assert intent_log.users_with_intent(store) == ["alice"]
    WHOLE.save(store)  # it takes it again
    assert intent_log.load_intent(store, "alice") == WHOLE
    WHOLE.remove(store)
    assert intent_log.users_with_intent(store) == []


def test_where_nothing_takes_it_both_places_are_named_with_what_to_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "state_folder", lambda: Path("/proc/none"))
    full(store, monkeypatch)
    with pytest.raises(OSError, match="make room in one of them") as caught:
        PLAN.save(store)
    said = explain(caught.value)
    assert f"neither to {store.path} (No space left on device) nor to /proc/none" in said


def test_a_folder_outside_that_is_open_to_others_stops_nobody_and_is_closed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(store, monkeypatch)
    PLAN.save(store)
    folder = outside.state_folder() / "restores"
    folder.chmod(0o777)
    assert intent_log.users_with_intent(store) == ["alice"]
    assert intent_log.load_intent(store, "alice") is not None
    WHOLE.save(store)
    assert folder.stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        os.chown(folder / NAME, 60000, 60000)
        with pytest.raises(StoreError, match="it is somebody else's"):
            intent_log.load_intent(store, "alice")


def test_the_end_of_one_outside_removes_none_of_another_restore(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(PLAN, aside=".replaced-y")
    other.save(store)
    with monkeypatch.context() as patched:
        full(store, patched)
        WHOLE.save(store)
    WHOLE.remove(store)
    assert intent_log.load_intent(store, "alice") == other
    other.remove(store)


def test_one_outside_of_a_store_that_somebody_holds_is_left_to_them(
    store: Store, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "another", create=True) as another:
        its = replace(WHOLE, store=str(another.path))
        with intent_log.held_store(its, store) as held:
            assert held is not None
            assert os.path.samestat(os.fstat(held.fd), os.fstat(another.fd))
        another.lock(wait=0)
        with intent_log.held_store(its, store) as held:
            assert held is None
    with intent_log.held_store(replace(WHOLE, store=str(tmp_path / "gone")), store) as held:
        assert held is store
