"""A machine on which people use T3 (its stand-in): units, ports, browsers that are logged in, and
what they wrote."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_t3

from support import programs
from support.booted.machine import Machine, Result
from support.booted.users import add_user, database_path, server_unit
from support.sampling import is_soak

USERS = ("alice", "bob", "carol")
PORTS = {user: 3773 + number for number, user in enumerate(USERS)}
AUTOUPDATE_ROOT = "/var/lib/t3-autoupdate"
FREEZE = "/etc/t3-autoupdate.freeze"
LIVE = "/run/t3-fake-live"  # what is broken on real servers alone is broken while this is there
PACKAGE = "/usr/local/lib/node_modules/t3"
# How long the steps of a trial in the gate may take: the real ones in a soak; else so little that
# nothing is waited for in vain.
LIMITS: tuple[str, ...] = () if is_soak() else ("--serve=15", "--pair=6", "--stop=8", "--bring=6")
# which go by the real clock, into the middle of a test
TIMERS = ("t3-autoupdate.timer", "t3-autoupdate-drain.timer")


def offer_version(
    machine: Machine,
    version: str,
    variant: str = "good",
    *,
    live_only: bool = False,
    form: str = "npm",
    engines: str = "",
) -> None:
    """Have npm know of a version: it lies where T3_NPM_SPEC looks."""
    with tempfile.TemporaryDirectory() as folder:
        machine.copy_in(
            fake_t3.tarball(Path(folder), version, variant, live_only, form=form, engines=engines),
            f"/srv/t3-{version}.tgz",
        )


def npm_install_globally(machine: Machine, version: str) -> None:
    """As `npm i -g t3@VERSION` leaves it."""
    offer_version(machine, version)
    machine.sh(programs.text("npm_install_globally.sh"), version, PACKAGE)


def set_up_servers(
    machine: Machine, source: Path, users: Sequence[str] = USERS, version: str = "0.0.24"
) -> None:
    """Users with real data, whose servers of `version` run; what the timers start, tests start."""
    machine.run("systemctl", "disable", "--now", *TIMERS)
    npm_install_globally(machine, version)
    # npm itself would be 300 packages in the tree
    machine.copy_in(fake_t3.HERE / "npm", "/usr/local/bin/npm", 0o755)
    machine.write("/opt/browser.py", programs.text("browser.py"))
    machine.write("/opt/watch_ports.py", programs.text("watch_ports.py"))
    machine.copy_in(
        fake_t3.HERE / "t3-serve@.service", "/etc/systemd/system/t3-serve@.service", 0o644
    )
    machine.write(
        "/etc/default/t3-autoupdate", "T3_NPM_SPEC=/srv/t3-{version}.tgz\nT3_AUTOUPDATE_WATCH=3\n"
    )
    machine.run("systemctl", "daemon-reload")
    for user in users:
        add_user(machine, user, source)
        machine.write(f"/etc/t3-serve/{user}.env", f"T3_PORT={PORTS[user]}\n")
        machine.run("systemctl", "enable", "--now", server_unit(user))
    for user in users:
        machine.until(lambda user=user: is_listening(machine, user), f"server of {user}")


def is_listening(machine: Machine, user: str) -> bool:
    """Whether a server listens, and answers: asked too early, some never do."""
    script = (
        'exec 3<>"/dev/tcp/127.0.0.1/$1"; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; '
        "read -r -t 1 -n 1 -u 3"
    )
    return machine.run("bash", "-ec", script, "bash", str(PORTS[user]), check=False).code == 0


def browser(machine: Machine, user: str, *words: str) -> Any:
    """What a browser gets: `login` (a cookie), `session COOKIE` (whether it is logged in), or `PATH
    COOKIE BODY` (a status)."""
    return machine.run("python3", "/opt/browser.py", user, str(PORTS[user]), *words).document


def write_message(machine: Machine, user: str, cookie: str) -> None:
    """Write a message as a user, by their browser."""
    assert browser(machine, user, "/fake/event", cookie, "{}") == 200


def autoupdate(machine: Machine, *words: str, **how: Any) -> Result:
    """Run the command; its exit code is for the test to judge."""
    return machine.run("t3-autoupdate", *words, check=False, timeout=how.pop("timeout", 600), **how)


def autoupdate_in_a_hurry(machine: Machine, *words: str) -> Result:
    """The same, with a gate that gives up on a version by LIMITS."""
    limits = f"t3_backup.autoupdate.gate.gate.LIMITS={json.dumps(LIMITS)}"
    line = programs.booted_line("call_with.py", limits, "t3_backup.autoupdate.main", *words)
    return machine.run(*line, check=False, timeout=600)


def autoupdate_status(machine: Machine) -> dict[str, Any]:
    """What `status --json` says."""
    return autoupdate(machine, "status", "--json").document


def versions(machine: Machine) -> dict[str, str]:
    """Each account's program, as its server says it and as its link does; they must agree where it
    runs."""
    found = {}
    for user in USERS:
        link = machine.run("readlink", f"{AUTOUPDATE_ROOT}/{user}/current", check=False).out.strip()
        found[user] = link.rpartition("/")[2]
    return found


def running_version(machine: Machine, user: str) -> str:
    """What the server itself says that it is."""
    line = programs.booted_line("print_version.py", str(PORTS[user]))
    done = machine.run(*line, check=False)
    if done.code != 0:
        told = machine.run(
            "journalctl",
            "--no-pager",
            "--output=short-precise",
            "--lines=40",
            "-u",
            server_unit(user),
        ).out
        raise AssertionError(f"the server of {user} does not answer: {done.err[-200:]}\n{told}")
    return done.out.strip()


def read_content(machine: Machine, user: str) -> dict[str, Any]:
    """What counts in a user's live database: its level, and every row of their history and
    logins."""
    line = programs.booted_line("digest_database.py", database_path(user))
    return machine.run(*line, user=user).document


HISTORY = (
    "projection_projects",
    "projection_threads",
    "projection_thread_messages",
    "orchestration_events",
)


def history_of(found: dict[str, Any]) -> dict[str, Any]:
    """Of what `content` gave, what a migration leaves as it is."""
    return {table: found[table] for table in HISTORY}


def assert_not_mixed(machine: Machine, users: Sequence[str] = USERS) -> None:
    """Each account is on the old program with the old schema or on the new one with the new."""
    programs = versions(machine)
    for user in users:
        found = read_content(machine, user)
        assert (programs[user], found["level"], found["scopes"]) in (
            ("0.0.24", 30, False),
            ("0.0.25", 31, True),
        ), (user, found)
        assert running_version(machine, user) == programs[user]


@contextmanager
def measure_outages(machine: Machine) -> Iterator[dict[str, float]]:
    """At the end of the block it holds each user's longest time without an answer, in seconds."""
    found: dict[str, float] = {}
    words = [f"{user}={port}" for user, port in PORTS.items()]
    with machine.start("python3", "/opt/watch_ports.py", *words) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "began\n"
        try:
            yield found
        finally:
            with closed_stdin(process):
                found |= json.loads(process.stdout.read())


@contextmanager
def closed_stdin(process: subprocess.Popen[str]) -> Iterator[None]:
    """Close its input, which ends it."""
    assert process.stdin is not None
    process.stdin.close()
    yield
    process.wait(30)
