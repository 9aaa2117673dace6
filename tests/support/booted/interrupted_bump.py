"""A bump of two accounts from the same beginning, again and again.

Each round is cut off in another way, and what it leaves is seen. The beginning is a bump that the
gate has passed, with a proven snapshot of each account, of which both accounts were deferred: all
that is left is to move them, which is where a mix could come from. `t3-autoupdate drain` does that.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import programs
from support.booted import t3_servers
from support.booted.machine import Machine, Result
from support.booted.t3_servers import AUTOUPDATE_ROOT, LIVE, PORTS, autoupdate, browser
from support.booted.users import STORE, server_unit

USERS = ("alice", "bob")
OLD, NEW = "0.0.24", "0.0.25"
_LEVELS = {OLD: (30, False), NEW: (31, True), "0.0.42": (52, True), "0.1.0": (62, True)}
# besides those that t3.settle disables
_TIMERS = ("t3-backup-state.timer", "t3-backup-verify.timer")
_SAVED = "/var/tmp/beginning"
_SETTINGS = (
    # of seconds
    "T3_NPM_SPEC=/srv/t3-{version}.tgz\n"
    "T3_AUTOUPDATE_WATCH=1\nT3_AUTOUPDATE_PATIENCE=10\nT3_AUTOUPDATE_SETTLE=0\n"
)


@dataclass
class InterruptedBump:
    """A machine that is brought back to the beginning, and what was there then."""

    machine: Machine
    old: str = OLD
    new: str = NEW
    cookies: dict[str, str] = field(default_factory=dict)
    rows: dict[str, set[str]] = field(default_factory=dict)
    events: dict[str, set[str]] = field(default_factory=dict)
    seconds: float = 0  # that a bump took up to where the accounts would be moved

    def set_up(self, source: Path) -> None:
        """Two people work with the old T3, that nobody has taken over yet."""
        machine = self.machine
        machine.run("apt", "install", "--yes", "--no-install-recommends", "strace")
        machine.run("systemctl", "disable", "--now", *_TIMERS)
        t3_servers.set_up_servers(machine, source, USERS, self.old)
        machine.write("/etc/default/t3-autoupdate", _SETTINGS)
        machine.write("/opt/look.py", programs.text("look.py"))
        for user in USERS:
            self.cookies[user] = browser(machine, user, "login")
            t3_servers.write_message(machine, user, self.cookies[user])

    def prepare(self) -> None:
        """Run a bump up to where the accounts would be moved; keep what is there then.

        The version is a good one, but where it is `broken`: then everybody can write, and nobody is
        logged in.
        """
        machine = self.machine
        for user in USERS:
            assert browser(machine, user, "/fake/agent", self.cookies[user], "{}") == 200
        t3_servers.offer_version(machine, self.new, "not-authenticated", live_only=True)
        began = time.monotonic()
        answer = autoupdate(machine, "--to", self.new)
        self.seconds = time.monotonic() - began
        assert answer.code == 0, answer
        assert answer.out.count(f"stays on {self.old} for now: sleep (pid") == len(USERS), answer
        for user in USERS:
            assert browser(machine, user, "/fake/no-agent", self.cookies[user], "{}") == 200
            found = self.inspect(user)
            self.rows[user], self.events[user] = set(found["rows"]), set(found["events"])
        self._with_all_stopped("save")

    def reset(self, *, broken: bool = False) -> None:
        """Back to the beginning."""
        self._with_all_stopped("put_back")
        if broken:
            self.machine.write(LIVE, "")

    def _with_all_stopped(self, what: str) -> None:
        units = " ".join(map(server_unit, USERS))
        ports = " ".join(str(PORTS[user]) for user in USERS)
        places = (AUTOUPDATE_ROOT, STORE, *(f"/home/{user}/.t3" for user in USERS))
        script = programs.text("with_servers_stopped.sh")
        self.machine.sh(script, what, _SAVED, units, ports, *places)

    def inspect(self, user: str, *, write: bool = False) -> dict[str, Any]:
        """What users find of their account; `write`: and whether they could write something, by
        whatever ran."""
        words = [user, str(PORTS[user]), self.cookies[user], *(["write"] if write else [])]
        return self.machine.run("python3", "/opt/look.py", *words, user=user).document

    def write(self) -> dict[str, dict[str, Any]]:
        """Everybody goes on to work, as far as they can, since nobody knows of an interruption."""
        return {user: self.inspect(user, write=True) for user in USERS}

    def finish(self, how: Sequence[str] = ("t3-autoupdate", "resume")) -> Result:
        """Have what was interrupted ended, as root does."""
        return self.machine.run(*how, check=False, timeout=300)

    def assert_whole(self, work: dict[str, dict[str, Any]], ended: Result) -> dict[str, str]:
        """Nobody's account is mixed, nothing that was there is missing, and everybody can log in;
        who is on which version."""
        versions = {}
        for user in USERS:
            found, before = self.inspect(user), work[user]
            version = versions[user] = found["program"]
            assert found["running"] == version, (user, found["running"], version, ended)
            assert (found["level"], found["scopes"]) == _LEVELS[version], (
                user,
                version,
                found["level"],
                ended,
            )
            assert found["session"] == (self.new != NEW or version == self.old), (
                f"{user}: the migration of {NEW} alone ends what was logged in: {ended}"
            )
            assert not found["held"], (user, ended)
            rows = set(found["rows"])
            assert rows >= self.rows[user], (
                f"{len(self.rows[user] - rows)} rows of {user} are missing: {ended}"
            )
            if not is_v2(version):
                assert set(found["events"]) >= self.events[user], (user, ended)
            if before["wrote"] and before["running"] <= version:
                assert rows >= set(before["rows"]), (
                    f"what {user} wrote on {before['running']} after the interruption "
                    f"is missing: {ended}"
                )
            elif before["wrote"]:
                assert (
                    f"{user}: written on {self.new} and no longer there: 1 messages" in ended.text
                ), ended
        assert self.machine.run("t3-autoupdate", "check", check=False).code == 0, ended
        status = json.loads(self.machine.run("t3-autoupdate", "status", "--json", check=False).out)
        assert not any(one["trouble"] for one in status["accounts"]), (status["accounts"], ended)
        moves = status["journal"]["moves"] if status["journal"] else []
        assert not any(one["phase"] == "reverted" for one in moves), (
            f"it failed, and would go on with the others: {ended}"
        )
        return versions


def is_v2(version: str) -> bool:
    """Whether it works with V2's database."""
    return version == "0.1.0"


@contextmanager
def killable_command(
    machine: Machine, *argv: str
) -> Iterator[tuple[subprocess.Popen[str], Callable[[bool], None]]]:
    """A command that runs, and what kills it: itself alone, or with all that it has started."""
    scope = f"round-{secrets.token_hex(4)}.scope"
    line = [
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        f"--unit={scope}",
        "bash",
        "-c",
        'echo $$; exec "$@"',
        "bash",
        *argv,
    ]
    with machine.start(*line) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        assert pid.isdecimal(), pid + process.stdout.read()

        def kill(with_all: bool) -> None:
            how = (
                ["systemctl", "kill", "--signal=SIGKILL", scope]
                if with_all
                else ["kill", "-9", pid]
            )
            machine.run(*how, check=False)  # it may have ended

        try:
            yield process, kill
        finally:
            kill(True)
