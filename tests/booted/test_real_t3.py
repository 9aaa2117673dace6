"""To the official T3 0.0.42 and back, by the packages, with a user's data and logins."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import real_t3
from support.booted import t3_servers
from support.booted.machine import Machine, boot
from support.booted.t3_deployment import list_account_snapshots
from support.booted.t3_servers import autoupdate, browser, running_version, write_message
from support.booted.users import server_unit
from support.t3_data import real_database

OLD, NEW = "0.0.26", real_t3.VERSION  # the old one is the stand-in
USER = "alice"
# which the official T3 needs, and a small Debian has not: libatomic1
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libatomic.so.1")


@pytest.fixture(scope="module")
def machine(
    suite: str, deb: Path, autoupdate_deb: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A machine on which one user works with the old one, and npm has the new one."""
    # made by T3 itself, which a real one reads event by event
    database = real_database("state-0.0.24", tmp_path_factory.mktemp("real") / "state.sqlite")
    with boot(suite, packages=[deb, autoupdate_deb]) as booted:
        booted.copy_in(LIBRARY.resolve(), str(LIBRARY))
        t3_servers.set_up_servers(booted, database, [USER], OLD)
        booted.copy_in(real_t3.archive(), f"/srv/t3-{NEW}.tgz")
        yield booted


def content(machine: Machine) -> dict[str, int]:
    """What the user would miss, as the backup counts it."""
    machine.run("t3-backup-state", "run")
    [database] = list_account_snapshots(machine, USER)[0]["databases"]
    return dict(database["census"]["content"])


def t3(machine: Machine, *words: str) -> str:
    """What their own program prints."""
    at = ["--base-dir", f"/home/{USER}/.t3"]
    return machine.run("t3", *words, *at, user=USER).out


def agents_of_ours(machine: Machine) -> list[str]:
    """By what our login checks are known, of the logins that stand."""
    listed = json.loads(t3(machine, "auth", "session", "list", "--json"))
    agents = [str(one["client"].get("userAgent")) for one in listed]
    assert agents, "those of the user's browser are there"
    return [one for one in agents if one.startswith("t3-backup/")]


def journal_of_others(machine: Machine) -> str:
    """The journal without what the user's server says itself, which prints its token."""
    lines: list[dict[str, Any]] = machine.journal()
    own = server_unit(USER)
    return "\n".join(str(one["MESSAGE"]) for one in lines if one.get("_SYSTEMD_UNIT") != own)


def test_a_bump_to_the_official_t3_and_back_keeps_data_and_logins_and_tells_no_token(
    machine: Machine,
) -> None:
    said = list[str]()

    def bump(*words: str) -> str:
        done = autoupdate(machine, *words)
        assert done.code == 0, done.text
        said.append(done.text)
        return done.text

    old_login = browser(machine, USER, "login")
    write_message(machine, USER, old_login)
    before = content(machine)
    assert before["messages"] > 0
    bump("adopt")

    gate = bump("--to", NEW)
    assert f"gate: {NEW} passed on an empty state" in gate
    assert f"gate: {NEW} passed on the data of {USER}" in gate
    assert running_version(machine, USER) == NEW
    after = content(machine)
    assert {word: after[word] for word in ("projects", "threads", "messages")} == {
        word: before[word] for word in ("projects", "threads", "messages")
    }
    new_login = browser(machine, USER, "login")
    assert browser(machine, USER, "session", new_login) is True
    t3(machine, "project", "add", f"/home/{USER}", "--title", "new")
    assert content(machine)["projects"] == before["projects"] + 1
    bump("check")
    assert agents_of_ours(machine) == []

    lost = bump("rollback", "--user", USER, "--yes")
    assert "will be lost: 1 projects" in lost
    assert running_version(machine, USER) == OLD
    assert content(machine) == before
    assert browser(machine, USER, "session", old_login) is True
    assert agents_of_ours(machine) == []

    bump("rollback", "--undo", "--user", USER, "--yes")
    assert running_version(machine, USER) == NEW
    assert content(machine)["projects"] == before["projects"] + 1
    assert browser(machine, USER, "session", new_login) is True
    assert agents_of_ours(machine) == []

    own = machine.run("journalctl", "--no-pager", "-o", "cat", "-u", server_unit(USER)).out
    tokens = re.findall(r"Token: (\w{12})", own)
    assert tokens, "it prints them"
    told = "\n".join([*said, journal_of_others(machine)])
    assert not [one for one in tokens if one in told]
    assert not re.search(r"Token: |pair#token=|[█▀▄]|eyJ[\w-]{10}", told)
