"""A store that isn't there, or is another one, is not begun anew: every snapshot would be out of
sight, and all would seem well."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import sandbox
from support.databases import commit_row
from support.host import Answer, Host, list_snapshots, succeeded
from support.users import needs_root

from demo.users import User
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import StoreError
from t3_backup.store.known_stores import KnownStores

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="changes the store")]


@pytest.fixture
def iris(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """A user with a snapshot."""
    user = make_user("identity-iris", small)
    host.write_map(user)
    succeeded(host.t3())
    return user


@pytest.fixture
def disk(host: Host) -> Iterator[Path]:
    """A place where the store's disk is mounted."""
    place = host.folder / "disk"
    place.mkdir()
    _mount(place)
    yield place
    subprocess.run(["umount", place], check=False, capture_output=True)


def _mount(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "none", place], check=True)


def channels(host: Host, **more: str) -> dict[str, Answer]:
    calls = {"run": (), "status": ("status",), "nagios": ("status", "--nagios")}
    return {name: host.t3(*words, **more) for name, words in calls.items()}


def codes(found: dict[str, Answer]) -> list[int]:
    return [answer.code for answer in found.values()]


@pytest.mark.parametrize("beneath", ["store", "."])
def test_a_disk_that_is_not_mounted_is_refused_and_told(
    host: Host, iris: User, disk: Path, beneath: str
) -> None:
    """Row 62: whether the store is the mount point, or a folder on the disk."""
    place = disk / beneath
    where = {"T3_BACKUP_DEST": str(place)}
    shutil.copytree(host.store, place, dirs_exist_ok=True)
    place.chmod(0o700)
    succeeded(host.t3(**where))
    subprocess.run(["umount", disk], check=True)
    disk.chmod(0o700)
    (disk / "lost+found").mkdir()  # as a new disk has
    found = channels(host, **where)
    assert codes(found) == [1, 1, 2], found
    for answer in found.values():
        assert f"no store at {place}" in answer.out + answer.err
        assert f"t3-backup-state init --adopt --dest {place}" in answer.out + answer.err
    doctor = host.t3("doctor", "--json", **where)
    [check] = [one for one in doctor.document["checks"] if one["name"] == "identity"]
    assert (doctor.code, check["status"]) == (1, "fail")
    for words in (("list",), ("restore", iris.name, "--yes")):
        answer = host.t3(*words, **where)
        assert (answer.code, f"no store at {place}, where there was one" in answer.err) == (1, True)
    assert os.listdir(disk) == ["lost+found"]


def test_another_disk_in_its_place_is_refused_until_it_is_adopted(host: Host, iris: User) -> None:
    """Row 62: also one that holds snapshots of the same accounts, and whose mark is gone."""
    kept = host.store.rename(host.folder / "kept")
    succeeded(host.t3("init", "--adopt"))
    succeeded(host.t3())
    other = host.store.rename(host.folder / "other")
    kept.rename(host.store)
    names = [one["name"] for one in list_snapshots(host, iris)]
    found = channels(host)
    assert codes(found) == [1, 1, 2], found
    assert "is another store than the one that is remembered" in found["run"].err
    assert host.t3("run", "--dry-run").code == host.t3("init").code == 1
    for words in (("list",), ("verify",), ("restore", iris.name, "--yes")):
        succeeded(host.t3(*words))
    (host.store / "+store").unlink()
    assert "has no mark" in host.t3().err
    (host.store / "+store").symlink_to("nowhere")
    assert "has no mark" in host.t3().err
    succeeded(host.t3("init", "--adopt"))
    commit_row(iris)
    succeeded(host.t3())
    succeeded(host.t3("status"))
    assert {*names} < {one["name"] for one in list_snapshots(host, iris)}
    shutil.rmtree(other)


def test_a_slip_in_the_name_begins_no_second_store(host: Host, iris: User) -> None:
    """Row 62: where the setting names it; who types --dest means it."""
    slip = {"T3_BACKUP_DEST": str(host.folder / "stroe")}
    found = channels(host, **slip)
    assert codes(found) == [1, 1, 2], found
    assert f"the snapshots of {iris.name} are in {host.store}" in found["run"].err
    assert not (host.folder / "stroe").exists()
    other = host.folder / "other"  # somebody's private folder
    other.mkdir(mode=0o700)
    (other / "notes").write_text("")
    for place in (other, host.store / iris.name):
        before = os.listdir(place)
        answer = host.t3(T3_BACKUP_DEST=str(place))
        assert (answer.code, f"{place} is new, and" in answer.err) == (1, True), answer
        assert os.listdir(place) == before
    succeeded(host.t3("run", "--dest", str(host.folder / "second")))
    named = [place for place, _ in KnownStores(host.folder / "state").configured()]
    assert named == [host.store]
    succeeded(host.t3("init", **slip))
    succeeded(host.t3(**slip))


def test_a_store_of_an_earlier_version_is_marked_by_the_first_run(host: Host, iris: User) -> None:
    (host.store / "+store").unlink()
    shutil.rmtree(host.folder / "state")
    doctor = host.t3("doctor", "--json")
    [check] = [one for one in doctor.document["checks"] if one["name"] == "identity"]
    assert check["status"] == "warn"
    assert "t3-backup-state init" in check["text"]
    succeeded(host.t3())
    mark = json.loads((host.store / "+store").read_text())["id"]
    known = json.loads((host.folder / "state" / "stores.json").read_text())["stores"]
    assert known == {str(host.store): mark}


def test_a_store_that_was_moved_is_known_by_its_mark(host: Host, iris: User) -> None:
    moved = host.folder / "moved"
    shutil.copytree(host.store, moved)
    host.store.rename(host.folder / "old")
    succeeded(host.t3(T3_BACKUP_DEST=str(moved)))
    succeeded(host.t3("status", T3_BACKUP_DEST=str(moved)))


def test_where_nothing_can_be_remembered_backups_are_made(host: Host, iris: User) -> None:
    """As in the service, to which that folder is read-only."""
    shutil.rmtree(host.folder / "state")
    (host.folder / "state").write_text("no folder")
    succeeded(host.t3())


def test_init_begins_a_store_or_none_where_asked(host: Host, iris: User) -> None:
    new = host.folder / "new"
    succeeded(host.t3("init", "--existing", "--dest", str(new)))
    assert not new.exists()
    answer = succeeded(host.t3("init", "--json", "--dest", str(new)))
    assert answer.document["id"] == json.loads((new / "+store").read_text())["id"]
    again = succeeded(host.t3("init", "--existing", "--json", "--dest", str(new)))
    assert again.document == answer.document


def test_a_store_that_is_another_is_held_by_no_bump(host: Host, iris: User) -> None:
    """Row 62: nothing of an account is changed then."""
    known = KnownStores(host.folder / "state")
    snapshots = Snapshots(host.store, known)
    with snapshots.hold_store(5):
        pass
    host.store.rename(host.folder / "kept")
    with pytest.raises(StoreError, match="is its disk mounted"), snapshots.hold_store(5):
        pass
    assert not host.store.exists()
