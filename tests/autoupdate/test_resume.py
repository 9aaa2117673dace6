"""What is left of a bump that was killed between two accounts, or after the last: it ends as it
would have, and tells what failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from t3_backup.autoupdate import freeze, journal_runner, resume
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import DONE, REVERTED, WAITING, Journal, Move
from t3_backup.autoupdate.programs.installations import GLOBAL
from t3_backup.errors import Failure

OLD, NEW = "0.0.24", "0.0.25"
ALICE, BOB = (Move(user, OLD, NEW, f"prebump-{NEW}") for user in ("alice", "bob"))


@pytest.mark.parametrize("first", [WAITING, DONE])
def test_a_failure_that_was_not_told_yet_is_the_end_of_the_bump(
    machine: Context, first: str
) -> None:
    """Nobody else is moved to a version that failed, and it does not become everybody's."""
    moves = (replace(ALICE, phase=first), replace(BOB, phase=REVERTED, reason="no login"))
    machine.journals.save(Journal("bump", NEW, journal_runner.now(), moves))
    with pytest.raises(Failure, match=r"bob: bump from 0\.0\.24 to 0\.0\.25 failed: no login"):
        resume.resume_interrupted(machine)
    assert "no login" in (freeze.read_reason(machine.settings.freeze) or "")
    assert machine.journals.load() is None
    assert machine.journals.history()[0].result == "failed"
    assert machine.installations.linked_version(GLOBAL) == OLD


def test_a_bump_that_lacks_nothing_but_its_end_is_ended(machine: Context) -> None:
    machine.journals.save(
        Journal(
            "bump",
            NEW,
            journal_runner.now(),
            (replace(ALICE, phase=DONE), replace(BOB, phase=DONE)),
        )
    )
    resume.resume_interrupted(machine)
    assert freeze.read_reason(machine.settings.freeze) is None
    assert machine.journals.history()[0].result == "done"
    assert machine.installations.linked_version(GLOBAL) == NEW
