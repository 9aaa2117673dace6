"""What a proof has found: of one bad base once, and "could not be checked" is no verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import sandbox
from support.databases import commit_row
from support.host import Host, list_snapshots, succeeded
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="changes the store")]


@pytest.fixture
def petra(host: Host, make_user: Callable[..., User], small: Path) -> User:
    """A user with four snapshots: the newest is plain, the others hang on it."""
    user = make_user("proof-petra", small)
    host.write_map(user)
    host.environ["T3_BACKUP_COMPACT"] = "delta"
    for _ in range(4):
        back_up(host, user)
    assert [one["form"] for one in list_snapshots(host, user)] == ["plain", *["delta"] * 3]
    return user


def back_up(host: Host, user: User) -> None:
    commit_row(user)
    succeeded(host.t3("run", "--user", user.name))


def rot(snapshot: dict[str, Any], at: int = 0) -> None:
    """Change four bytes of a snapshot's data, as a disk may."""
    path = Path(snapshot["path"])
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at or path.stat().st_size // 2)
        four = file.read(4)
        file.seek(-4, 1)
        file.write(bytes(byte ^ 0x55 for byte in four))
    path.chmod(0o400)


def test_without_room_to_put_it_together_one_could_not_be_checked_and_that_is_no_verdict(
    host: Host, petra: User
) -> None:
    """The newest is plain, and is proven all the same."""
    answer = host.t3("verify", petra.name, T3_BACKUP_RESERVE="1000T")
    assert (answer.code, answer.out.count("could not be checked: no room to rebuild")) == (3, 3)
    assert "NOT verify" not in answer.out
    found = host.t3("verify", petra.name, "--json", T3_BACKUP_RESERVE="1000T")
    proven = found.account(petra.name)["snapshots"]
    assert (found.code, [one["verifies"] for one in proven]) == (3, [True, None, None, None])
    assert all("no room" in one["problems"][0] for one in proven[1:])


def test_one_bad_base_is_told_once_with_all_that_hang_on_it(host: Host, petra: User) -> None:
    newest, *others = list_snapshots(host, petra)
    rot(newest)
    answer = host.t3("verify", petra.name)
    told = [line for line in answer.out.splitlines() if "NOT verify" in line]
    assert (answer.code, len(told)) == (1, 1), answer
    assert told[0].startswith(f"WARN: {petra.name} {newest['name']} does NOT verify: SHA-256 ")
    hanging = ", ".join(one["name"] for one in others)
    assert f"; and with it 3 that hang on it: {hanging}; next: " in told[0]
    # with one of them alone, too, the base is what is at fault
    answer = host.t3("verify", petra.name, "--at", others[1]["name"])
    assert f"does NOT verify: it hangs on {newest['name']}, which does not" in answer.out
