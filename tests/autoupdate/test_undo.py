"""Which rollback an undo is of, and which freeze a later success ends: by what is in the history."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from t3_backup.autoupdate import freeze, resume, rollback_plan
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import DONE, REVERTED, WAITING, Journal, Move, is_mended
from t3_backup.autoupdate.snapshots import Snapshots
from t3_backup.errors import Failure

OLD, NEW = "0.0.24", "0.0.25"


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The snapshots that are there."""
    names = [f"{user}-{number}" for user in ("alice", "bob") for number in (1, 2)]
    monkeypatch.setattr(
        Snapshots,
        "list_snapshots",
        lambda _, user: [SimpleNamespace(name=one) for one in names if one.startswith(user)],
    )
    return names


def entry(
    number: int, kind: str, *moves: tuple[str, str], froze: str = "", result: str = "done"
) -> Journal:
    """One that has ended; each account with what became of its move."""
    before, program = (OLD, NEW) if kind in ("bump", "undo") else (NEW, OLD)
    return Journal(
        kind,
        program,
        f"2026-11-{number:02}T05:00:00Z",
        tuple(
            Move(user, before, program, kind, phase=phase, data="d", kept=f"{user}-{number}")
            for user, phase in moves
        ),
        ended=f"2026-11-{number:02}T05:01:00Z",
        result=result,
        froze=froze,
    )


def planned(machine: Context, *entries: Journal, user: str | None = None) -> list[tuple[str, str]]:
    """Whom an undo would give which snapshot back."""
    for one in entries:
        machine.journals.end(one)
    plans, _ = rollback_plan.plan_undo(machine, user)
    return [(plan.move.user, plan.move.data or "") for plan in plans]


BACK = entry(1, "rollback", ("alice", DONE), ("bob", DONE))


@pytest.mark.parametrize(
    "later",
    [
        entry(2, "rollback", ("alice", REVERTED), result="failed"),
        entry(2, "rollback", ("alice", WAITING), result="stopped"),
        entry(2, "rollback", result="stopped"),
    ],
)
def test_a_later_rollback_that_failed_or_changed_nothing_blocks_no_undo(
    machine: Context, later: Journal
) -> None:
    both = [("alice", "alice-1"), ("bob", "bob-1")]
    assert planned(machine, BACK, later) == both


def test_the_newest_that_was_done_is_undone_and_of_each_account_its_own(machine: Context) -> None:
    later = entry(2, "rollback", ("bob", DONE))
    assert planned(machine, BACK, later) == [("bob", "bob-2")]
    assert planned(machine, user="alice") == [("alice", "alice-1")]


def test_what_was_undone_or_moved_on_since_is_not_undone_again(machine: Context) -> None:
    for user in ("alice", "bob"):
        machine.installations.link_version(user, OLD)
    undone = entry(2, "undo", ("alice", DONE))
    assert planned(machine, BACK, undone) == [("bob", "bob-1")]
    with pytest.raises(Failure, match="there was no rollback of alice that could be undone"):
        planned(machine, user="alice")
    with pytest.raises(Failure, match="no rollback of bob"):
        planned(machine, entry(3, "bump", ("bob", DONE)), user="bob")


def test_a_rollback_behind_one_that_was_undone_can_be_undone_then(machine: Context) -> None:
    entries = entry(2, "rollback", ("bob", DONE)), entry(3, "undo", ("bob", DONE))
    assert planned(machine, BACK, *entries, user="bob") == [("bob", "bob-1")]


def test_who_is_on_another_program_is_told_and_keeps_no_other(machine: Context) -> None:
    machine.installations.link_version("alice", NEW)
    machine.journals.end(BACK)
    plans, left = rollback_plan.plan_undo(machine)
    assert [plan.move.user for plan in plans] == ["bob"]
    assert left == [f"alice is not on {OLD} any more: the rollback of {BACK.began} can't be undone"]


def test_what_was_left_and_is_pruned_since_stops_no_server_in_vain(
    machine: Context, kept: list[str]
) -> None:
    kept.remove("alice-1")
    machine.journals.end(BACK)
    plans, left = rollback_plan.plan_undo(machine)
    assert [plan.move.user for plan in plans] == ["bob"]
    gone = f"alice: alice-1, which the rollback of {BACK.began} has left, is gone"
    assert left == [f"{gone}: it can't be undone; next: t3-backup-state list alice"]


FAILED = entry(1, "rollback", ("alice", REVERTED), ("bob", DONE), froze="why", result="failed")


@pytest.mark.parametrize(
    ("later", "mended"),
    [
        ([], False),
        ([entry(2, "rollback", ("bob", DONE))], False),
        ([entry(2, "rollback", ("alice", REVERTED))], False),
        ([entry(2, "rollback", ("alice", DONE))], True),
        ([entry(3, "rollback", ("carol", DONE)), entry(2, "undo", ("alice", DONE))], True),
    ],
)
def test_a_freeze_ends_with_the_success_of_the_same_accounts(
    later: list[Journal], mended: bool
) -> None:
    assert is_mended([*later, FAILED], "why") is mended
    assert not is_mended([*later, FAILED], "on holiday"), "nobody else's freeze ends by that"


def test_the_freeze_of_a_bump_never_ends_by_a_rollback() -> None:
    failed = entry(1, "bump", ("alice", REVERTED), froze="why")
    assert not is_mended([entry(2, "rollback", ("alice", DONE)), failed], "why")


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_end_of_a_rollback_ends_what_an_earlier_one_froze(
    machine: Context, by_hand: bool, tmp_path: Path
) -> None:
    machine.journals.end(FAILED)
    freeze.freeze(machine.settings.freeze, "why; kept so by hand" if by_hand else "why")
    now = entry(2, "rollback", ("alice", DONE))
    machine.journals.save(now)
    resume.end_rollback(machine, now)
    assert (freeze.read_reason(machine.settings.freeze) is None) is not by_hand
    assert machine.journals.load() is None
