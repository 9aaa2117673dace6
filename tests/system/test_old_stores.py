"""What the tests keep of earlier versions is what it is said to be: their stores are read and found
sound by this one, and by 0.1.0 as it was released."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.host import Answer, Host
from support.old_stores import ACCOUNT, LABEL, STORES, unpack_store
from support.released import Released
from support.users import needs_root

FORMS = {"format-1": ["plain"] * 4, "format-2": ["delta"] * 4 + ["plain"] * 2}
ARCHIVES = {"format-1": 0, "format-2": 2}


def manifests(folder: Path) -> list[dict[str, object]]:
    """Those of an account folder, in the order of their sequence."""
    found = [json.loads(path.read_text()) for path in folder.glob("state-*.json")]
    return sorted(found, key=lambda manifest: manifest["sequence"])


def assert_listed(answer: Answer, name: str) -> None:
    snapshots = answer.account(ACCOUNT)["snapshots"][::-1]
    assert [snapshot["form"] for snapshot in snapshots] == FORMS[name]
    assert [snapshot["sequence"] for snapshot in snapshots] == [*range(1, len(snapshots) + 1)]
    verdicts = [snapshot["verdict"] for snapshot in snapshots]
    assert verdicts == ["verified"] * (len(snapshots) - 1) + ["suspect"]
    assert [snapshot["label"] for snapshot in snapshots].count(LABEL) == 1


@pytest.mark.parametrize("name", STORES)
def test_a_store_is_of_the_format_that_it_is_said_to_be(name: str, tmp_path: Path) -> None:
    folder = unpack_store(name, tmp_path / "store") / ACCOUNT
    found = manifests(folder)
    assert {manifest["format"] for manifest in found} == {STORES.index(name) + 1}
    assert {"checksum" in manifest for manifest in found} == {name == "format-2"}
    assert {manifest["user"] for manifest in found} == {ACCOUNT}
    assert len([*folder.glob("files-*.tar.zst")]) == ARCHIVES[name]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o400}
    assert folder.stat().st_mode & 0o777 == 0o700


@needs_root
@pytest.mark.parametrize("name", STORES)
def test_a_store_is_listed_and_proven_by_the_version_of_today(name: str, host: Host) -> None:
    unpack_store(name, host.store)
    assert_listed(host.t3("list", "--json"), name)
    answer = host.t3("verify", "--all")
    assert answer.code == 0, answer
    assert answer.out.count("\nverified ") + answer.out.startswith("verified ") >= 3, answer


@needs_root
@pytest.mark.parametrize("name", STORES)
def test_a_store_is_listed_and_proven_by_0_1_0(name: str, host: Host, released: Released) -> None:
    unpack_store(name, host.store)
    assert released.t3(host, "--version").out.split()[-1] == "0.1.0"
    assert_listed(released.t3(host, "list", "--json"), name)
    answer = released.t3(host, "verify", "--all")
    assert answer.code == 0, answer
    assert f"unchanged {ACCOUNT} " in answer.out
