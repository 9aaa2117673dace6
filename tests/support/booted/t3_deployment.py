"""A machine on which three users work with T3, both packages installed: their browsers, what they
have, and its snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.booted import t3_servers
from support.booted.machine import Machine, boot
from support.booted.t3_servers import USERS, browser, read_content, write_message
from support.booted.users import server_unit


@dataclass
class Deployment:
    """A machine with users, their cookies, and what they had."""

    machine: Machine
    cookies: dict[str, str] = field(default_factory=dict)

    def login(self) -> None:
        """Everybody logs in, and says something."""
        for user in USERS:
            self.cookies[user] = browser(self.machine, user, "login")
            assert browser(self.machine, user, "session", self.cookies[user]) is True
            write_message(self.machine, user, self.cookies[user])

    def content(self) -> dict[str, dict[str, Any]]:
        """What counts in the live databases."""
        return {user: read_content(self.machine, user) for user in USERS}

    def main_pids(self) -> dict[str, str]:
        """The servers' processes."""
        return {user: self.machine.show(server_unit(user), "MainPID")["MainPID"] for user in USERS}

    def forget(self, version: str) -> None:
        """A version is no longer on the disk: the next bump to it fetches it anew."""
        self.machine.run(
            "rm",
            "-rf",
            f"{t3_servers.AUTOUPDATE_ROOT}/versions/{version}",
            f"{t3_servers.AUTOUPDATE_ROOT}/versions/{version}.json",
        )


@contextmanager
def deploy(
    suite: str, deb: Path, autoupdate_deb: Path, database: Path, version: str = "0.0.24"
) -> Iterator[Deployment]:
    """One whose users are logged in to servers of a version."""
    with boot(suite, packages=[deb, autoupdate_deb]) as machine:
        t3_servers.set_up_servers(machine, database, version=version)
        found = Deployment(machine)
        found.login()
        yield found


def list_account_snapshots(machine: Machine, user: str) -> list[dict[str, Any]]:
    """The snapshots of an account, the newest first."""
    return machine.run("t3-backup-state", "list", user, "--json").document["accounts"][0][
        "snapshots"
    ]
