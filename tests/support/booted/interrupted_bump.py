"""A bump of two accounts from the same beginning, again and again: each round is cut off in another way, and what it leaves is seen.

The beginning is a bump that the gate has passed, with a proven snapshot of each account, of which
both accounts were deferred: all that is left is to move them, which is where a mix could come from.
`t3-autoupdate drain` does that.
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

from support.booted import t3_servers
from support.booted.machine import Machine, Result
from support.booted.t3_servers import AUTOUPDATE_ROOT, FREEZE, LIVE, PORTS, autoupdate, browser
from support.booted.users import STORE, server_unit

USERS = ("alice", "bob")
OLD, NEW = "0.0.24", "0.0.25"
_LEVELS = {OLD: (30, False), NEW: (31, True)}
# besides those that t3.settle disables
_TIMERS = ("t3-backup-state.timer", "t3-backup-verify.timer")
_SAVED = "/var/tmp/beginning"
_SETTINGS = (
    # of seconds
    "T3_NPM_SPEC=/srv/t3-{version}.tgz\nT3_AUTOUPDATE_WATCH=1\nT3_AUTOUPDATE_PATIENCE=10\nT3_AUTOUPDATE_SETTLE=0\n"
)
_STOPPED = "systemctl stop {units}\n"
_STARTED = """
systemctl reset-failed 't3-serve@*' 't3-as-*' 't3-autoupdate*' 2>/dev/null || true
systemctl start {units}
for port in {ports}; do
    for _ in {{1..600}}; do exec 3<>"/dev/tcp/127.0.0.1/$port" && break || sleep 0.05; done 2>/dev/null
done
"""
_SAVE = f"rm -rf {_SAVED}; mkdir {_SAVED}; cp -a --parents {{places}} {_SAVED}\n"
_PUT_BACK = f"rm -rf {{places}} {FREEZE} {LIVE}; cp -a {_SAVED}/. /\n"

# What one finds of an account, run as its owner: the version that runs, whether its browser is
# logged in, and their rows. A word more, and they write something before, where they can.
_LOOK = r"""
import json, os, sqlite3, subprocess, sys, urllib.request
user, port, cookie, *write = sys.argv[1:]
def ask(path, **how):
    headers = {"Cookie": cookie, "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers, **how)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer), answer.headers.get("Set-Cookie", "").split(";")[0]
def login():
    line = ["t3", "auth", "pairing", "create", "--base-dir", f"/home/{user}/.t3", "--ttl", "5m", "--json"]
    minted = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    path = "bootstrap" if found["running"] == "0.0.24" else "browser-session"
    return ask(f"/api/auth/{path}", data=json.dumps({"credential": json.loads(minted)["credential"]}).encode())[1]
found = {"running": None, "wrote": False, "session": False}
try:
    found["running"] = ask("/.well-known/t3/environment")[0]["serverVersion"]
    found["session"] = ask("/api/auth/session")[0]["authenticated"]
    if write:
        cookie = cookie if found["session"] else login()
        ask("/fake/event", data=b"{}")
        found["wrote"] = True
except (OSError, ValueError):
    pass
if found["running"] or not write:
    c = sqlite3.connect(f"/home/{user}/.t3/userdata/state.sqlite", timeout=20)
    found["level"] = c.execute("SELECT max(migration_id) FROM effect_sql_migrations").fetchone()[0]
    found["scopes"] = "scopes" in [row[1] for row in c.execute("PRAGMA table_info(auth_sessions)")]
    names = "SELECT event_id FROM orchestration_events", "SELECT message_id FROM projection_thread_messages"
    found["rows"] = [row[0] for name in names for row in c.execute(name)]
    link = f"/var/lib/t3-autoupdate/{user}/current"
    found["program"] = os.readlink(link).rpartition("/")[2] if os.path.islink(link) else ""
    found["held"] = os.path.exists(f"/var/lib/t3-autoupdate/{user}/held")
print(json.dumps(found))
"""


@dataclass
class InterruptedBump:
    """A machine that is brought back to the beginning, and what was there then."""

    machine: Machine
    cookies: dict[str, str] = field(default_factory=dict)
    rows: dict[str, set[str]] = field(default_factory=dict)
    seconds: float = 0  # that a bump took up to where the accounts would be moved

    def set_up(self, source: Path) -> None:
        """Two people work with a T3 of 0.0.24 that nobody has taken over yet."""
        machine = self.machine
        machine.run("apt", "install", "--yes", "--no-install-recommends", "strace")
        machine.run("systemctl", "disable", "--now", *_TIMERS)
        t3_servers.set_up_servers(machine, source, USERS)
        machine.write("/etc/default/t3-autoupdate", _SETTINGS)
        machine.write("/opt/look.py", _LOOK)
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
        t3_servers.offer_version(machine, NEW, "not-authenticated", live_only=True)
        began = time.monotonic()
        answer = autoupdate(machine, "--to", NEW)
        self.seconds = time.monotonic() - began
        assert answer.code == 0, answer
        assert answer.out.count("stays on 0.0.24 for now: sleep (pid") == len(USERS), answer
        for user in USERS:
            assert browser(machine, user, "/fake/no-agent", self.cookies[user], "{}") == 200
            self.rows[user] = set(self.inspect(user)["rows"])
        self._with_all_stopped(_SAVE)

    def reset(self, *, broken: bool = False) -> None:
        """Back to the beginning."""
        self._with_all_stopped(_PUT_BACK)
        if broken:
            self.machine.write(LIVE, "")

    def _with_all_stopped(self, script: str) -> None:
        places = " ".join((AUTOUPDATE_ROOT, STORE, *(f"/home/{user}/.t3" for user in USERS)))
        words = {
            "places": places,
            "units": " ".join(map(server_unit, USERS)),
            "ports": " ".join(str(PORTS[user]) for user in USERS),
        }
        self.machine.sh((_STOPPED + script + _STARTED).format(**words))

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
            assert found["session"] == (version == OLD), (
                f"{user}: a migration alone ends what was logged in: {ended}"
            )
            assert not found["held"], (user, ended)
            rows = set(found["rows"])
            assert rows >= self.rows[user], (
                f"{len(self.rows[user] - rows)} rows of {user} are missing: {ended}"
            )
            if before["wrote"] and before["running"] <= version:
                assert rows >= set(before["rows"]), (
                    f"what {user} wrote on {before['running']} after the interruption is missing: {ended}"
                )
            elif before["wrote"]:
                assert f"{user}: written on {NEW} and no longer there: 1 messages" in ended.text, (
                    ended
                )
        assert self.machine.run("t3-autoupdate", "check", check=False).code == 0, ended
        status = json.loads(self.machine.run("t3-autoupdate", "status", "--json", check=False).out)
        assert not any(one["trouble"] for one in status["accounts"]), (status["accounts"], ended)
        moves = status["journal"]["moves"] if status["journal"] else []
        assert not any(one["phase"] == "reverted" for one in moves), (
            f"it failed, and would go on with the others: {ended}"
        )
        return versions


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
