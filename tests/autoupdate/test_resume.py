"""What is left of a bump that was killed between two accounts, or after the last: it ends as it
would have, and tells what failed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from t3_backup import accounts
from t3_backup.autoupdate import freeze, journal_runner, resume
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import DONE, REVERTED, REVERTING, WAITING, Journal, Move
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


def interrupted(machine: Context) -> None:
    """Alice's program is the old one again, and her data the new one's still."""
    machine.installations.hold("alice")
    half = replace(ALICE, phase=REVERTING, reason="no login", kept="a-snapshot")
    machine.journals.save(Journal("bump", NEW, journal_runner.now(), (half,)))


def test_who_is_unknown_in_the_middle_of_a_move_stays_held(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a directory service does not run yet: an old program must not get new data."""
    interrupted(machine)
    machine.user_map.write_text("a@example=alice\n")
    monkeypatch.setattr(accounts, "exists", lambda user: user != "alice")
    with pytest.raises(Failure, match="alice: no such user on this system, and their move has not"):
        resume.resume_interrupted(machine)
    assert machine.installations.is_held("alice")
    plan = machine.journals.load()
    assert plan is not None
    assert plan.move_of("alice").phase == REVERTING


def test_who_was_removed_in_the_middle_of_a_move_is_waited_for_no_more(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(machine)
    monkeypatch.setattr(accounts, "exists", lambda user: user != "alice")
    resume.resume_interrupted(machine)
    assert not machine.installations.is_held("alice")
    assert machine.journals.load() is None
