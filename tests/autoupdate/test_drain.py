"""Whoever was left for later: the rest are moved whatever is the matter with one, and nobody is
moved by the end of a bump alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from t3_backup.autoupdate import freeze, journal_runner, resume, rollback, transition
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.installations import GLOBAL
from t3_backup.autoupdate.journal import DEFERRED, DONE, WAITING, Journal, Move
from t3_backup.autoupdate.rollback import Plan
from t3_backup.errors import Failure
from t3_backup.t3.servers import Server

OLD, NEW = "0.0.24", "0.0.25"
# Users that every Debian has: nothing of theirs is touched.
ONE, OTHER, LATE, GONE = "daemon", "mail", "news", "nobody-of-this-name"


def wait(machine: Context, *users: str, phase: str = DEFERRED) -> None:
    """Have a bump that has left these for later."""
    moves = tuple(
        Move(user, OLD, NEW, f"prebump-{NEW}", phase=phase, reason="why_busy") for user in users
    )
    for user in users:
        machine.installations.link_version(user, OLD)
    machine.journals.save(Journal("bump", NEW, journal_runner.now(), moves))


def carried(
    machine: Context, monkeypatch: pytest.MonkeyPatch, *, frozen_after: str = ""
) -> list[str]:
    """Who is moved from now on; each move is done at once. `frozen_after`: somebody does that while
    this one is moved."""
    users: list[str] = []

    def run_move(context: Context, plan: Journal, wanted: Move, how: object) -> Journal:
        assert how is transition.begin_transition
        users.append(wanted.user)
        context.installations.link_version(wanted.user, wanted.program)
        plan = plan.with_move(replace(wanted, phase=DONE))
        context.journals.save(plan)
        if wanted.user == frozen_after:
            freeze.freeze(context.settings.freeze, "stop that")
        return plan

    monkeypatch.setattr(journal_runner, "run_move", run_move)
    return users


@pytest.fixture(autouse=True)
def _nobody_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "find_busy", lambda servers: {})


def test_who_is_no_user_any_more_is_left_out_and_holds_nobody_up(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no drain would ever get to the others, and the bump would never end."""
    wait(machine, GONE, ONE)
    users = carried(machine, monkeypatch)
    resume.drain_deferred(machine)
    assert users == [ONE]
    assert machine.journals.load() is None
    assert machine.installations.linked_version(GLOBAL) == NEW
    assert [one.user for one in machine.journals.history()[0].moves] == [ONE]


def test_one_that_cannot_be_looked_at_stays_for_later_and_the_others_are_moved(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_server(self: Context, user: str) -> Server:
        if user == ONE:
            raise Failure(f"{user}: it took too long")
        return found(self, user)

    found = Context.server
    monkeypatch.setattr(Context, "server", find_server)
    wait(machine, ONE, OTHER)
    users = carried(machine, monkeypatch)
    resume.drain_deferred(machine)
    assert users == [OTHER]
    plan = machine.journals.load()
    assert plan is not None
    assert {one.user: (one.phase, one.reason) for one in plan.moves}[ONE] == (
        DEFERRED,
        f"{ONE}: it took too long",
    )
    assert machine.installations.linked_version(GLOBAL) == OLD


def test_a_freeze_in_the_middle_is_heeded_before_the_next_account(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(machine, ONE, OTHER)
    users = carried(machine, monkeypatch, frozen_after=ONE)
    with pytest.raises(Failure, match="stop that; once that is mended: t3-autoupdate thaw"):
        resume.drain_deferred(machine)
    assert users == [ONE]
    plan = machine.journals.load()
    assert plan is not None
    assert (plan.users(DONE), plan.users(WAITING)) == ([ONE], [OTHER])
    freeze.thaw(machine.settings.freeze)
    resume.drain_deferred(machine)
    assert users == [ONE, OTHER]


def test_who_came_in_the_meantime_is_not_moved_by_the_end_of_it(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run the program of whoever has none of their own: a call of a newer one migrates what
    their older server works on."""
    said: list[str] = []
    machine = replace(machine, say=said.append)
    machine.user_map.write_text(f"x={LATE}\n")
    wait(machine, ONE)
    carried(machine, monkeypatch)
    resume.drain_deferred(machine)
    assert machine.installations.linked_version(GLOBAL) == NEW
    assert machine.installations.linked_version(LATE) == OLD
    assert said[-1].startswith("all accounts are on 0.0.25 or later, except ")
    assert LATE in said[-1]


def test_nor_by_the_way_back_of_another(machine: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.user_map.write_text(f"x={LATE}\n")
    for user in (GLOBAL, ONE):
        machine.installations.link_version(user, NEW)
    carried(machine, monkeypatch)
    rollback.execute_plans(
        machine, [Plan(Move(ONE, NEW, OLD, "prerollback-0.0.24"), ())], "rollback", lambda: None
    )
    assert (
        machine.installations.linked_version(ONE),
        machine.installations.linked_version(GLOBAL),
    ) == (OLD, OLD)
    assert machine.installations.linked_version(LATE) == NEW


def test_a_hold_needs_no_link(machine: Context) -> None:
    """As of one who came since: their way back begins with it."""
    machine.installations.hold(LATE)
    assert machine.installations.is_held(LATE)
    machine.installations.release(LATE)
    assert not machine.installations.is_held(LATE)
