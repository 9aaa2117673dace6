"""Each real database of T3 that there is, and what it grows to: copied under a server of its own kind
that loses no commit, proven, compacted, and put back byte for byte. Row 1, row 3, row 42."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import programs
from support.databases import MIB
from support.host import Answer, Host
from support.processes import BOUND_S, user_process
from support.sampling import is_soak
from support.t3_data import REAL, is_v2, level_of, real_database
from support.t3_growth import grow
from support.users import needs_root

from demo.users import User

pytestmark = needs_root

GROWN = 300 * MIB if is_soak() else 3 * MIB
SIZES = {"as it is": 0, "grown": GROWN}


@contextmanager
def served(user: User, path: Path) -> Iterator[None]:
    """A server commits all the time until the block is left, and no commit of it fails."""
    line = programs.line("write_t3.py", str(path), "-")
    with user_process(user, line) as server:
        yield
        out, _ = server.communicate(timeout=BOUND_S)
    counted = json.loads(out)
    assert counted["commits"] > 0
    assert counted["busy"] == 0, counted


def succeeded(answer: Answer) -> Answer:
    assert answer.code == 0, answer
    return answer


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", REAL)
def test_it_is_copied_under_its_server_proven_compacted_and_put_back(
    host: Host, make_user: Callable[..., User], name: str, size: str
) -> None:
    user = make_user("real-rob")
    host.write_map(user)
    host.environ["T3_BACKUP_COMPACT"] = "delta"
    path = user.database.parent / ("statev2.sqlite" if is_v2(name) else "state.sqlite")
    path.parent.mkdir(parents=True, exist_ok=True)
    real_database(name, path)
    if SIZES[size]:
        grow(path, SIZES[size])
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", str(user.home)], check=True)
    taken: list[dict[str, Any]] = []
    with served(user, path):
        for _ in range(2):
            account = succeeded(host.t3("run", "--json")).account(user.name)
            assert (account["outcome"], account["uncovered"]) == ("backed_up", [])
            taken += account["snapshots"]
    found = [(one["file"], one["verdict"], one["t3_level"], one["missing"]) for one in taken]
    assert found == [(path.name, "verified", level_of(name), [])] * 2
    assert [ledger[-1][0] for one in taken for ledger in [one["databases"][0]["ledger"]]] == [
        level_of(name)
    ] * 2
    forms = [one["form"] for one in host.t3("list", "--json").account(user.name)["snapshots"]]
    assert forms == ["plain", "delta"]
    succeeded(host.t3("verify", "--all"))
    for number, one in enumerate(taken):
        target = host.store.parent / f"export-{number}"  # all that the service may write
        succeeded(host.t3("restore", user.name, "--at", one["name"], "--to", str(target)))
        assert sha256_of(target) == one["sha256"]
    succeeded(host.t3("restore", user.name, "--at", taken[0]["name"], "--yes", "--no-service"))
    assert sha256_of(path) == taken[0]["sha256"]
    assert os.stat(path).st_uid == user.uid
    assert not [end for end in ("-wal", "-shm", "-journal") if Path(f"{path}{end}").exists()]
