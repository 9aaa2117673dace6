"""What a restore says it has left beside the new state is there, and where it says nothing, nothing
is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import sandbox
from support.host import Host
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]


@pytest.fixture
def settled(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """Somebody with a settings file, and a snapshot of both."""
    user = make_user("kept", small)
    host.write_map(user)
    path = user.database.parent / "settings.json"
    path.write_text("{}")
    user.give(path)
    assert host.t3("run").code == 0
    return user


def left(user: User) -> set[Path]:
    return set(user.database.parent.glob("*.replaced-*"))


def test_where_the_database_was_gone_the_files_that_stay_are_named(
    host: Host, settled: User
) -> None:
    for path in settled.database.parent.glob("state.sqlite*"):
        path.unlink()
    (settled.database.parent / "settings.json").write_text("changed")
    document = host.t3("restore", settled.name, "--yes", "--json").document
    assert document["kept"] == [f"{path}/old" for path in left(settled)] != []


def test_where_no_files_were_there_none_are_kept(host: Host, settled: User) -> None:
    (settled.database.parent / "settings.json").unlink()
    document = host.t3("restore", settled.name, "--yes", "--json").document
    assert document["prerestore"] is not None
    assert left(settled) == set()
    assert document["kept"] == []


def test_where_all_of_it_was_sealed_nothing_is_left(host: Host, settled: User) -> None:
    document = host.t3("restore", settled.name, "--yes", "--json").document
    assert left(settled) == set()
    assert document["kept"] == []


def test_where_all_was_gone_nothing_is_left(host: Host, settled: User) -> None:
    shutil.rmtree(settled.home / ".t3")
    document = host.t3("restore", settled.name, "--yes", "--json").document
    assert left(settled) == set()
    assert document["kept"] == []
