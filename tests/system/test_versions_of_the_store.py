"""An upgrade rewrites nothing and reads all; after a downgrade nothing is lost: version 0.1.0 removes
nothing of a store that it doesn't know, and uses no number twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.databases import commit_row
from support.host import Answer, Host
from support.old_stores import ACCOUNT, STORES, unpack_store
from support.released import Released
from support.t3_data import real_database
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

V1, V2 = "v1-real-0.0.42-from26-52", "v2-grown-61"
KEEP_ONE = {
    "T3_BACKUP_KEEP": "1",
    "T3_BACKUP_KEEP_DAILY": "0",
    "T3_BACKUP_KEEP_LABELLED": "1",
}


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def succeeded(answer: Answer) -> Answer:
    assert answer.code == 0, answer
    return answer


@pytest.fixture
def lee(make_user: Callable[..., User], host: Host) -> Iterator[User]:
    """A user with a V1 database, a V2 database and files beside them."""
    user = make_user("ver-lee")
    folder = user.database.parent
    folder.mkdir(parents=True, exist_ok=True)
    real_database(V1, folder / "state.sqlite")
    real_database(V2, folder / "statev2.sqlite")
    (folder / "settings.json").write_text("{}")
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", str(user.home)], check=True)
    host.write_map(user)
    yield user


@pytest.mark.parametrize("name", STORES)
def test_an_upgrade_reads_all_and_rewrites_nothing(name: str, host: Host) -> None:
    folder = unpack_store(name, host.store) / ACCOUNT
    before = hashes(folder)
    listed = succeeded(host.t3("list", "--json")).account(ACCOUNT)["snapshots"]
    assert {snapshot["format"] for snapshot in listed} == {STORES.index(name) + 1}
    assert {snapshot["file"] for snapshot in listed} == {"state.sqlite"}
    succeeded(host.t3("verify", "--all"))
    target = host.folder / "out.sqlite"
    for snapshot in listed:
        succeeded(host.t3("restore", ACCOUNT, "--at", snapshot["name"], "--to", str(target)))
        assert hashlib.sha256(target.read_bytes()).hexdigest() == snapshot["sha256"]
        target.unlink()
    assert hashes(folder) == before


@pytest.mark.parametrize("name", STORES)
def test_what_is_accepted_pruned_and_compacted_of_it_stays_whole(name: str, host: Host) -> None:
    """And of its own format, so that the version that made it can read it still."""
    host.environ["T3_BACKUP_COMPACT"] = "delta"
    folder = unpack_store(name, host.store) / ACCOUNT
    count = len(host.t3("list", "--json").account(ACCOUNT)["snapshots"])
    succeeded(host.t3("accept", ACCOUNT))
    succeeded(host.t3("prune"))
    forms = [one["form"] for one in host.t3("list", "--json").account(ACCOUNT)["snapshots"]]
    assert forms.count("delta") >= count - 2, "the newest verified one and the newest stay plain"
    for key, value in KEEP_ONE.items():
        host.environ[key] = value
    succeeded(host.t3("prune"))
    left = host.t3("list", "--json").account(ACCOUNT)["snapshots"]
    assert 0 < len(left) < count
    succeeded(host.t3("verify", "--all"))
    formats = {json.loads(path.read_text())["format"] for path in folder.glob("state-*.json")}
    assert formats <= {1, 2}


def test_both_formats_live_in_one_folder(host: Host, lee: User, released: Released) -> None:
    """A user's history goes on over the upgrade: numbers, chains, what is unchanged."""
    host.environ["T3_BACKUP_COMPACT"] = "delta"
    v2 = lee.database.parent / "statev2.sqlite"
    kept = v2.rename(lee.home / "kept")
    for _ in range(2):
        succeeded(released.t3(host, "run"))
        commit_row(lee)
    kept.rename(v2)
    for _ in range(3):
        commit_row(lee)
        succeeded(host.t3("run"))
    snapshots = host.t3("list", "--json").account(lee.name)["snapshots"][::-1]
    assert [one["sequence"] for one in snapshots] == [1, 2, 3, 4, 5]
    assert [one["format"] for one in snapshots] == [2, 2, 3, 3, 3]
    assert [len(one["databases"]) for one in snapshots] == [1, 1, 2, 2, 2]
    assert {one["verdict"] for one in snapshots} == {"verified"}
    assert [one["form"] for one in snapshots] == ["delta"] * 4 + ["plain"]
    succeeded(host.t3("verify", "--all"))


def test_after_a_downgrade_nothing_is_removed_and_no_number_is_used_twice(
    host: Host, lee: User, released: Released
) -> None:
    """What it doesn't know it calls unsound, and lists; the way back up is as if nothing was."""
    succeeded(released.t3(host, "run"))
    for label in ("before", None, None):
        commit_row(lee)
        words = ["--label", label] if label else []
        succeeded(host.t3("run", *words))
    folder = host.account_dir(lee)
    ours = hashes(folder)
    names = {one["name"] for one in host.t3("list", "--json").account(lee.name)["snapshots"]}
    for _ in range(2):
        listed = released.t3(host, "list", "--json").account(lee.name)
        assert listed["strays"], "what it does not know is listed"
        released.t3(host, "verify")
        commit_row(lee)
        answer = released.t3(host, "run", **KEEP_ONE)
        assert "backed up" in answer.out, answer
        released.t3(host, "prune", **KEEP_ONE)
        released.t3(host, "restore", lee.name, "--yes", "--no-service")
        now = hashes(folder)
        gone = {
            name
            for name in ours.keys() - now.keys()
            # its own, of before, which its own rules let go; hashes of pages are a hint
            if not name.startswith(min(names)) and not name.endswith(".pages")
        }
        assert gone == set()
        assert {name: now[name] for name in ours if name in now} == {
            name: ours[name] for name in ours if name in now
        }
    unsound = released.t3(host, "verify")
    assert unsound.code == 1
    assert "not counted" in unsound.out + unsound.err
    manifests = [json.loads(path.read_text()) for path in folder.glob("state-*.json")]
    numbers = [one["sequence"] for one in manifests]
    assert len(set(numbers)) == len(numbers)
    succeeded(host.t3("verify", "--all"))
    after = {one["name"] for one in host.t3("list", "--json").account(lee.name)["snapshots"]}
    assert names - {min(names)} <= after
