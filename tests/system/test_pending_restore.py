"""A restore that has not ended is said by every command that looks at the store, and none of them
waits for it or ends it."""

from __future__ import annotations

import os

import pytest
from support import sandbox
from support.host import Host
from support.live_database import paused_restore
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]


def said(host: Host, user: User) -> dict[str, tuple[int, str, bool | None]]:
    """Of each command: its exit code, its line about a restore (or none), and whether its document
    says `interrupted`."""
    found = {}
    for words in (("list",), ("verify",), ("list", user.name)):
        plain, answer = host.t3(*words), host.t3(*words, "--json")
        entry = answer.account(user.name)["restore"]
        lines = [line for line in plain.out.splitlines() if line.startswith("WARN: a restore")]
        found[" ".join(words)] = (
            plain.code,
            "".join(lines),
            None if entry is None else entry["interrupted"],
        )
    return found


def checks(host: Host, user: User) -> list[tuple[str, str]]:
    """What the doctor says of it: status and text."""
    return [
        (check["status"], check["text"])
        for check in host.t3("doctor", "--json").document["checks"]
        if check["name"] == f"restore {user.name}"
    ]


def test_a_restore_that_runs_and_one_that_was_interrupted_are_told_of(
    host: Host, alice: User
) -> None:
    assert host.t3("run").code == 0
    store = set(os.listdir(host.store))
    assert {text for _, text, _ in said(host, alice).values()} == {""}
    assert checks(host, alice) == []
    with paused_restore(host, alice) as process:
        listed = host.t3("list", alice.name)
        assert (listed.code, "is running or was interrupted" in listed.out) == (0, True), listed
        assert host.t3("list", "--json").account(alice.name)["restore"]["interrupted"] is False
        [(status, text)] = checks(host, alice)
        assert (status, "is running or was interrupted" in text) == ("warn", True)
        assert host.t3("status", "--nagios").code == 0, "it may run"
        process.kill()
        process.wait()
    for code, text, interrupted in said(host, alice).values():
        assert code == 0
        assert (
            "was interrupted; the next run ends it; to end it now: "
            f"t3-backup-state accept {alice.name}" in text
        )
        assert interrupted is True
    [(status, text)] = checks(host, alice)
    assert (status, f"t3-backup-state accept {alice.name}" in text) == ("fail", True)
    watched = host.t3("status", "--nagios")
    assert (watched.code, "was interrupted; the next run ends it" in watched.out) == (2, True)
    assert f"{alice.name}+restore.json" in os.listdir(host.store), "who only looks ends nothing"
    assert host.t3("accept", alice.name).code == 0
    assert set(os.listdir(host.store)) == store
    assert {text for _, text, _ in said(host, alice).values()} == {""}
    assert checks(host, alice) == []


def test_one_that_cannot_be_read_is_told_of_and_costs_no_list(host: Host, alice: User) -> None:
    assert host.t3("run").code == 0
    (host.store / f"{alice.name}+restore.json").write_text("\x1b[31m")
    answer = host.t3("list", alice.name)
    assert answer.code == 0
    assert "look at it, then remove it" in answer.out
    assert len(answer.out.splitlines()) == len(host.t3("list", alice.name).out.splitlines()) > 1
    [(status, text)] = checks(host, alice)
    assert (status, f"{alice.name}+restore.json" in text) == ("fail", True)
