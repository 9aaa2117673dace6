"""A bump of which some accounts are left: what a signal, and the freeze file, make of the rest.
Real users, a real store, no servers."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_t3
import pytest
from support import programs
from support.host import Answer, Host
from support.paths import ROOT
from support.processes import until
from support.users import needs_root

from demo.users import User
from t3_backup.autoupdate import journal
from t3_backup.autoupdate.journal import Journal, Journals, Move
from t3_backup.autoupdate.programs.installations import GLOBAL, Installations

pytestmark = needs_root

OLD, NEW = "0.0.24", "0.0.25"


@dataclass
class Bump:
    """One that was begun: the programs are there, two accounts wait."""

    host: Host
    users: tuple[User, User]

    @property
    def root(self) -> Path:
        return self.host.folder / "root"

    @property
    def freeze(self) -> Path:
        return self.host.folder / "freeze"

    def start(self, *words: str) -> subprocess.Popen[str]:
        more = {"T3_AUTOUPDATE_ROOT": str(self.root), "T3_AUTOUPDATE_FREEZE": str(self.freeze)}
        line = programs.line("autoupdate.py", *words, isolated=False)
        pipe = subprocess.PIPE
        return subprocess.Popen(
            line, env=self.host.env(**more), cwd=ROOT, stdout=pipe, stderr=pipe, text=True
        )

    def call(self, *words: str) -> Answer:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=120)
        return Answer(process.returncode, out, err)

    def phases(self, name: str = journal.NAME) -> list[str]:
        """Of each account; of the last that has ended, by its name."""
        found: dict[str, Any] = json.loads((self.root / name).read_text())
        return [
            move["phase"]
            for move in (found if name == journal.NAME else found["entries"][0])["moves"]
        ]

    def programs(self) -> list[str | None]:
        return [
            Installations(self.root).linked_version(name)
            for name in (*(user.name for user in self.users), GLOBAL)
        ]


@pytest.fixture
def bump(host: Host, make_user: Callable[..., User], small: Path) -> Bump:
    users = make_user("alice", small), make_user("bob", small)
    host.write_map(*users)
    made = Bump(host, users)
    programs = Installations(made.root)
    for version in (OLD, NEW):
        programs.prefix(version).mkdir(parents=True)
        fake_t3.unpack(programs.prefix(version), version)
    for name in (*(user.name for user in users), GLOBAL):
        programs.link_version(name, OLD)
    moves = tuple(Move(user.name, OLD, NEW, f"prebump-{NEW}") for user in users)
    Journals(made.root).save(Journal("bump", NEW, "2026-11-27T05:00:00Z", moves))
    return made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_accounts_ends_it_as_stopped_and_the_next_goes_on(
    bump: Bump, number: signal.Signals
) -> None:
    with bump.start("drain") as process:
        until(lambda: bump.phases()[0] in journal.UNDER_WAY, "move that is under way")
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == -number, (out, err)
    assert "stopped; not all accounts were moved: the rest follow with: t3-autoupdate drain" in err
    assert bump.phases() == [journal.DONE, journal.WAITING]
    assert bump.programs() == [NEW, OLD, OLD]
    assert bump.call("drain").code == 0
    assert bump.phases(journal.HISTORY) == [journal.DONE, journal.DONE]
    assert bump.programs() == [NEW, NEW, NEW]


def test_while_it_is_frozen_a_drain_says_so_and_leaves_all_as_it_is(bump: Bump) -> None:
    assert bump.call("freeze", "on", "holiday").code == 0
    before = (bump.root / journal.NAME).read_bytes()
    answer = bump.call("drain")
    assert answer.code == 0, answer
    assert "frozen, nothing is done: " in answer.out
    assert "on holiday" in answer.out
    assert (len(answer.out.splitlines()), answer.err) == (1, "")
    assert (bump.root / journal.NAME).read_bytes() == before
    assert bump.programs() == [OLD, OLD, OLD]
    asked = bump.call("--to", NEW)
    assert (asked.code, "frozen" in asked.err) == (1, True), (
        "who asks by hand is told that they did not get it"
    )
    assert bump.call("thaw").code == 0
    assert bump.call("drain").code == 0
    assert bump.programs() == [NEW, NEW, NEW]


def test_one_account_is_frozen_alone_until_it_is_thawed(bump: Bump) -> None:
    """They are told with what ends it, by each command that shows or changes it."""
    alice = bump.users[0].name
    assert bump.call("freeze", "--user", alice, "their", "disk", "is", "new").code == 0
    status = bump.call("status")
    assert (status.code, "t3-autoupdate: WARN: frozen" in status.out) == (1, False)
    [line] = [line for line in status.out.splitlines() if "their disk is new" in line]
    assert line.startswith(f"t3-autoupdate: WARN: {alice}: ")
    assert line.endswith(f"; next: t3-autoupdate thaw --user {alice}")
    [account, other] = bump.call("status", "--json").document["accounts"]
    assert account["frozen"].endswith("Z their disk is new")
    assert other["frozen"] is None
    thawed = bump.call("thaw")
    assert "it was not frozen" in thawed.out
    assert f"{alice}: stays frozen by itself: " in thawed.out
    assert bump.call("thaw", "--user", alice).out == f"t3-autoupdate: {alice}: thawed\n"
    assert bump.call("status", "--json").document["accounts"][0]["frozen"] is None
    assert bump.call("freeze", "--user", "nobody").code == 2


def test_a_frozen_account_is_left_out_and_told_while_the_others_move(bump: Bump) -> None:
    alice, bob = (user.name for user in bump.users)
    moves = tuple(
        Move(user, OLD, NEW, f"prebump-{NEW}", phase=journal.DEFERRED) for user in (alice, bob)
    )
    Journals(bump.root).save(Journal("bump", NEW, "2026-11-27T05:00:00Z", moves))
    assert bump.call("freeze", "--user", alice, "new", "disk").code == 0
    drained = bump.call("drain")
    assert drained.code == 0, drained
    assert f"new disk; next: t3-autoupdate thaw --user {alice}" in drained.out
    assert bump.programs() == [OLD, NEW, NEW]
    assert bump.phases(journal.HISTORY) == [journal.WAITING, journal.DONE]
