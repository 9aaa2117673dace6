"""Archives of snapshots, as the command lists them."""

from __future__ import annotations

import time
from pathlib import Path

from demo.users import User
from support.host import Host


def wait_out_clock_tick(place: Path) -> None:
    """Let it be a while since anything was changed there: what is fresh may change again within the
    same tick of the clock."""
    newest = max(max(path.lstat().st_mtime, path.lstat().st_ctime) for path in place.rglob("*"))
    while time.time() < newest + 2.1:
        time.sleep(0.05)


def list_archives(host: Host, user: User) -> list[dict[str, object] | None]:
    """Of each snapshot, the newest first."""
    return [
        snapshot["companion"]
        for snapshot in host.t3("list", user.name, "--json").account(user.name)["snapshots"]
    ]
