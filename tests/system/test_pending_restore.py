"""A restore that has not ended is said by every command that looks at the store, and none of them
waits for it or ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support import sandbox
from support.host import Land
from support.processes import until
from support.users import needs_root

from demo.users import User

pytestmark = [needs_root, pytest.mark.skipif(sandbox.ACTIVE, reason="by hand")]


@contextmanager
def held_restore(
    land: Land, user: User, *words: str, operation: str = "swap_databases"
) -> Iterator[subprocess.Popen[str]]:
    """A restore whose worker of that operation never begins, until somebody writes to `held`; it is
    killed at the end, if it still runs."""
    held, at = land.folder / "held", land.folder / "at"
    at.unlink(missing_ok=True)
    held.unlink(missing_ok=True)
    os.mkfifo(held)
    wrapper = land.folder / "python3"
    hold = f"echo $$ >{at}; read line <{held}"
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *\'"operation": "{operation}"\'*) {hold} ;; esac\nexec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o755)
    line = [str(wrapper), "-m", "t3_backup", "restore", user.name, "--yes", *words]
    with subprocess.Popen(
        line, executable=sys.executable, env=land.env(), cwd="/", stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            worker = int(until(at.read_text, "worker"))
            assert '"begun": true' in (land.store / f"{user.name}+restore.json").read_text()
            yield process
        finally:
            process.kill()
            if process.wait() != 0:  # else its worker has ended, too
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


def said(land: Land, user: User) -> dict[str, tuple[int, str, bool | None]]:
    """Of each command: its exit code, its line about a restore (or none), and whether its document
    says `interrupted`."""
    found = {}
    for words in (("list",), ("verify",), ("list", user.name)):
        plain, answer = land.t3(*words), land.t3(*words, "--json")
        entry = answer.account(user.name)["restore"]
        lines = [line for line in plain.out.splitlines() if line.startswith("WARN: a restore")]
        found[" ".join(words)] = (
            plain.code,
            "".join(lines),
            None if entry is None else entry["interrupted"],
        )
    return found


def checks(land: Land, user: User) -> list[tuple[str, str]]:
    """What the doctor says of it: status and text."""
    return [
        (check["status"], check["text"])
        for check in land.t3("doctor", "--json").document["checks"]
        if check["name"] == f"restore {user.name}"
    ]


def test_a_restore_that_runs_and_one_that_was_interrupted_are_told_of(
    land: Land, alice: User
) -> None:
    assert land.t3("run").code == 0
    store = set(os.listdir(land.store))
    assert {text for _, text, _ in said(land, alice).values()} == {""}
    assert checks(land, alice) == []
    with held_restore(land, alice) as process:
        listed = land.t3("list", alice.name)
        assert (listed.code, "is running or was interrupted" in listed.out) == (0, True), listed
        assert land.t3("list", "--json").account(alice.name)["restore"]["interrupted"] is False
        [(status, text)] = checks(land, alice)
        assert (status, "is running or was interrupted" in text) == ("warn", True)
        process.kill()
        process.wait()
    for code, text, interrupted in said(land, alice).values():
        assert code == 0
        assert (
            f"was interrupted; the next run ends it; to end it now: t3-backup-state accept {alice.name}"
            in text
        )
        assert interrupted is True
    [(status, text)] = checks(land, alice)
    assert (status, f"t3-backup-state accept {alice.name}" in text) == ("fail", True)
    assert f"{alice.name}+restore.json" in os.listdir(land.store), "who only looks ends nothing"
    assert land.t3("accept", alice.name).code == 0
    assert set(os.listdir(land.store)) == store
    assert {text for _, text, _ in said(land, alice).values()} == {""}
    assert checks(land, alice) == []


def test_one_that_cannot_be_read_is_told_of_and_costs_no_list(land: Land, alice: User) -> None:
    assert land.t3("run").code == 0
    (land.store / f"{alice.name}+restore.json").write_text("\x1b[31m")
    answer = land.t3("list", alice.name)
    assert answer.code == 0
    assert "look at it, then remove it" in answer.out
    assert len(answer.out.splitlines()) == len(land.t3("list", alice.name).out.splitlines()) > 1
    [(status, text)] = checks(land, alice)
    assert (status, f"{alice.name}+restore.json" in text) == ("fail", True)
