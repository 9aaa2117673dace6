"""A machine on which three users work with T3, both packages installed: their browsers, what they
have, and its snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.booted import t3_servers
from support.booted.machine import Machine
from support.booted.machine import machine as boot
from support.booted.t3_servers import USERS, browser, content, write_something
from support.booted.users import unit_of


@dataclass
class Town:
    """A machine with users, their cookies, and what they had."""

    machine: Machine
    cookies: dict[str, str] = field(default_factory=dict)

    def login(self) -> None:
        """Everybody logs in, and says something."""
        for user in USERS:
            self.cookies[user] = browser(self.machine, user, "login")
            assert browser(self.machine, user, "session", self.cookies[user]) is True
            write_something(self.machine, user, self.cookies[user])

    def content(self) -> dict[str, dict[str, Any]]:
        """What counts in the live databases."""
        return {user: content(self.machine, user) for user in USERS}

    def main_pids(self) -> dict[str, str]:
        """The servers' processes."""
        return {user: self.machine.show(unit_of(user), "MainPID")["MainPID"] for user in USERS}

    def forget(self, version: str) -> None:
        """A version is no longer on the disk: the next bump to it fetches it anew."""
        self.machine.run(
            "rm",
            "-rf",
            f"{t3_servers.ROOT}/versions/{version}",
            f"{t3_servers.ROOT}/versions/{version}.json",
        )


@contextmanager
def town(suite: str, deb: Path, autoupdate_deb: Path, database: Path) -> Iterator[Town]:
    """One whose users are logged in to servers of 0.0.24."""
    with boot(suite, packages=[deb, autoupdate_deb]) as machine:
        t3_servers.settle(machine, database)
        found = Town(machine)
        found.login()
        yield found


def listed(machine: Machine, user: str) -> list[dict[str, Any]]:
    """The snapshots of an account, the newest first."""
    return machine.run("t3-backup-state", "list", user, "--json").document["accounts"][0][
        "snapshots"
    ]
