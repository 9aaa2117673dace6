"""Whoever was left for later: the rest are moved whatever is the matter with one, and nobody is
moved by the end of a bump alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from t3_backup.autoupdate import freeze, journal_runner, resume, rollback, transition
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import (
    DEFERRED,
    DONE,
    REVERTED,
    REVERTING,
    WAITING,
    Journal,
    Move,
)
from t3_backup.autoupdate.programs.installations import GLOBAL
from t3_backup.autoupdate.rollback_plan import Plan
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
    machine: Context,
    monkeypatch: pytest.MonkeyPatch,
    *,
    frozen_after: str = "",
    ends: dict[str, Move] | None = None,
) -> list[str]:
    """Who is moved from now on; each move is done at once, or is as in `ends`. `frozen_after`:
    somebody does that while this one is moved."""
    users: list[str] = []

    def run_move(context: Context, plan: Journal, wanted: Move, how: object) -> Journal:
        assert how is transition.begin_transition
        users.append(wanted.user)
        if ends and wanted.user in ends:
            plan = plan.with_move(ends[wanted.user])
            context.journals.save(plan)
            return plan
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
    monkeypatch.setattr(resume, "find_busy", lambda servers, *, wait=True: {})


@pytest.mark.parametrize("include_busy", [False, True])
def test_who_begins_to_work_while_another_is_moved_is_left_for_later(
    machine: Context, monkeypatch: pytest.MonkeyPatch, include_busy: bool
) -> None:
    """The last of many accounts is moved minutes after it was looked at."""

    def find_busy(servers: list[Server], *, wait: bool = True) -> dict[str, str]:
        return {one.user: "an agent runs" for one in servers if one.user == OTHER and moved}

    wait(machine, ONE, OTHER)
    moved = carried(machine, monkeypatch)
    monkeypatch.setattr(resume, "find_busy", find_busy)
    resume.drain_deferred(machine, include_busy=include_busy)
    assert moved == ([ONE, OTHER] if include_busy else [ONE])
    if not include_busy:
        plan = machine.journals.load()
        assert plan is not None
        assert (plan.move_of(OTHER).phase, plan.move_of(OTHER).reason) == (
            DEFERRED,
            "an agent runs",
        )


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


@pytest.mark.parametrize("phase", [WAITING, REVERTED])
def test_an_accounts_own_fault_freezes_that_one_and_the_others_are_moved(
    machine: Context, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """Before its switch, or after: a port that somebody else has taken, a home that is full."""
    wait(machine, ONE, OTHER, phase=WAITING)
    failed = Move(
        ONE, OLD, NEW, "prebump", phase=phase, left_out=True, reason=f"{ONE}: port 1 is taken"
    )
    users = carried(machine, monkeypatch, ends={ONE: failed})
    resume.drain_deferred(machine)
    assert users == [ONE, OTHER]
    assert machine.left_out == {ONE}
    assert freeze.read_reason(machine.settings.freeze) is None
    assert machine.journals.load() is None
    [entry] = machine.journals.history()
    assert (entry.result, entry.move_of(ONE).froze) == ("done", machine.why_frozen(ONE))
    assert entry.move_of(ONE).froze.endswith("Z port 1 is taken")
    assert machine.why_frozen(OTHER) is None
    linked = machine.installations.linked_version
    assert (linked(ONE), linked(OTHER), linked(GLOBAL)) == (OLD, NEW, NEW)


def test_any_other_failure_ends_the_bump_and_freezes_all(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(machine, ONE, OTHER, phase=WAITING)
    failed = Move(ONE, OLD, NEW, "prebump", phase=REVERTED, reason="no login")
    users = carried(machine, monkeypatch, ends={ONE: failed})
    with pytest.raises(Failure, match="failed: no login; frozen until: t3-autoupdate thaw"):
        resume.drain_deferred(machine)
    assert users == [ONE]
    assert machine.why_frozen(ONE) is None
    assert freeze.read_reason(machine.settings.freeze) is not None


def test_what_has_become_the_matter_since_is_seen_before_a_server_is_stopped(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(self: Server) -> None:
        if self.user == ONE:
            raise Failure(f"{ONE}: file is not a database")

    monkeypatch.setattr(Server, "read_activity", look)
    wait(machine, ONE, OTHER, phase=WAITING)
    users = carried(machine, monkeypatch)
    resume.drain_deferred(machine)
    assert users == [OTHER]
    assert (machine.why_frozen(ONE) or "").endswith("Z file is not a database")


def test_one_that_is_down_by_its_own_fault_keeps_no_other_waiting(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its way back is tried again by each command, and the bump ends when it is back."""
    wait(machine, ONE, OTHER, phase=WAITING)
    down = Move(ONE, OLD, NEW, "prebump", phase=REVERTING, left_out=True, reason="no room")
    carried(machine, monkeypatch, ends={ONE: down})
    resume.drain_deferred(machine)
    plan = machine.journals.load()
    assert plan is not None
    assert (plan.users(REVERTING), plan.users(DONE)) == ([ONE], [OTHER])
    assert machine.installations.linked_version(GLOBAL) == OLD

    def back(context: Context, plan: Journal, wanted: Move, how: object) -> Journal:
        return plan.with_move(replace(wanted, phase=REVERTED))

    monkeypatch.setattr(journal_runner, "run_move", back)
    resume.resume_interrupted(machine)
    assert machine.journals.load() is None
    assert machine.installations.linked_version(GLOBAL) == NEW
    assert freeze.read_reason(machine.settings.freeze) is None


def test_a_canary_is_moved_alone_and_the_default_stays(
    machine: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    machine = replace(machine, say=said.append)
    wait(machine, ONE)
    plan = machine.journals.load()
    assert plan is not None
    machine.journals.save(replace(plan, canary=True))
    carried(machine, monkeypatch)
    resume.drain_deferred(machine)
    assert said[-1] == f"{ONE}: the canary on {NEW}; next: t3-autoupdate --to {NEW}, for all"
    linked = machine.installations.linked_version
    assert (linked(ONE), linked(GLOBAL)) == (NEW, OLD)


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
