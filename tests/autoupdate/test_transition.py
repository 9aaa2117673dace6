"""The order of a move's steps: wherever it is cut off or fails, an account ends on a program and
data that fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest

from t3_backup.autoupdate import journal, transition
from t3_backup.autoupdate.faults import AccountFault
from t3_backup.autoupdate.journal import Move
from t3_backup.errors import Failure

OLD, NEW = "0.0.24", "0.0.25"


class PowerCut(BaseException):
    """All that was in memory is gone."""


@dataclass
class FakeAccount:
    """One account, as far as a move can see it: every step is one that a power cut may come before
    or after, or that may fail."""

    program: str = OLD
    level: int = 30
    rows: int = 10
    # rows that were written on the old program with the old data since that was put back
    back: int = 0
    held: bool = False
    stale: bool = False  # whether a newer program's database lies beside its own
    with_stale: frozenset[str] = frozenset()  # the snapshots that hold such a one
    running: bool = True
    good: bool = True  # whether one can log in to the new program
    snapshots: dict[str, tuple[int, int]] = field(default_factory=dict)
    on_disk: Move | None = None
    steps: int = 0
    cut_at: int | None = None  # the step that a power cut comes in
    after: bool = False  # whether its effect has taken place by then
    fails: frozenset[int] = frozenset()  # steps that fail

    def _step(self, effect: object) -> None:
        self.steps += 1
        if self.steps in self.fails:
            raise Failure(f"step {self.steps}")
        if self.steps == self.cut_at and not self.after:
            raise PowerCut
        effect()  # type: ignore[operator]
        if self.steps == self.cut_at:
            raise PowerCut

    def save(self, state: Move) -> None:
        self._step(lambda: setattr(self, "on_disk", state))

    def hold(self) -> None:
        self._step(lambda: setattr(self, "held", True))

    def release(self) -> None:
        self._step(lambda: setattr(self, "held", False))

    def server_runs(self) -> bool:
        return self.running

    def stop_server(self) -> None:
        self._step(lambda: setattr(self, "running", False))

    def start_server(self) -> None:
        self._step(self.boot)

    def boot(self) -> None:
        """What a boot does, too: whatever is not held starts, migrates, and somebody works with
        it."""
        if not self.held:
            assert self.program == OLD or not self.stale, "it would go on with old data"
            self.running = True
            self.level = max(self.level, 31 if self.program == NEW else 30)
            self.rows += 1
            reverted = self.on_disk is not None and self.on_disk.phase in (
                journal.REVERTING,
                journal.RETURNING,
            )
            self.back += reverted and self.program == OLD

    def keep_snapshot(self, label: str, *, proven: bool) -> str:
        assert not self.running, "a snapshot of what a server still writes to is not the last word"
        name = f"{label}-{len(self.snapshots)}"
        self._step(lambda: self.snapshots.update({name: (self.level, self.rows)}))
        return name

    def put_aside_stale(self, before: str, program: str) -> None:
        assert not self.running
        self._step(lambda: setattr(self, "stale", False))

    def link_version(self, version: str) -> None:
        assert not self.running
        self._step(lambda: setattr(self, "program", version))

    def restore_snapshot(self, snapshot: str, *, kept: str | None) -> None:
        assert not self.running
        self._step(lambda: setattr(self, "level", self.snapshots[snapshot][0]))
        self.rows = self.snapshots[snapshot][1]
        self.stale = snapshot in self.with_stale

    def check_login(self) -> str:
        self._step(lambda: None)
        fits = self.running and (self.program == NEW or self.level == 30)
        if not fits or (self.program == NEW and not self.good):
            raise Failure("no login")
        return "/api"

    def crash(self) -> None:
        self.running = False
        self.cut_at = None
        self.boot()  # the unit is enabled


def planned(data: str | None = None, before: str = OLD, program: str = NEW) -> Move:
    return Move("alice", before, program, f"prebump-{program}", data=data)


def run(account: FakeAccount, wanted: Move) -> Move:
    """Begin, and where the power fails, boot and go on."""
    with suppress(PowerCut):
        return transition.begin_transition(account, wanted, account.save)
    account.crash()
    if account.on_disk is None:
        return wanted
    return transition.continue_transition(account, account.on_disk, account.save)


def assert_fits(account: FakeAccount, done: Move) -> None:
    assert (account.program, account.level) in ((OLD, 30), (NEW, 31)), "a mix"
    assert account.running
    assert not account.held
    assert done.phase not in journal.UNDER_WAY


def cuts() -> Iterator[tuple[int, bool]]:
    return itertools.product(range(1, 40), (False, True))


def test_a_good_version_is_switched_to_and_a_bad_one_is_taken_back_with_the_data() -> None:
    good, bad = FakeAccount(), FakeAccount(good=False)
    assert run(good, planned()).phase == journal.DONE
    assert (good.program, good.level) == (NEW, 31)
    done = run(bad, planned())
    assert done.phase == journal.REVERTED
    assert_fits(bad, done)
    assert bad.snapshots[done.kept or ""] == (30, 10)
    assert done.failed is not None
    assert bad.snapshots[done.failed] == (31, 11), "what was written on the new version is kept"


@pytest.mark.parametrize("good", [True, False])
def test_a_power_cut_before_or_after_any_step_leaves_no_mix(good: bool) -> None:
    reached = set()
    for cut_at, after in cuts():
        account = FakeAccount(good=good, stale=True, cut_at=cut_at, after=after)
        done = run(account, planned())
        assert_fits(account, done)
        assert account.rows >= 10 + account.back, (
            "what was there when it began is there, and what came since it was put back"
        )
        reached.add(done.phase)
    assert reached == (
        {journal.DONE, journal.REVERTED, journal.WAITING}
        if good
        else {journal.REVERTED, journal.WAITING}
    )


@pytest.mark.parametrize("good", [True, False])
def test_two_power_cuts_leave_none_either(good: bool) -> None:
    for first, second in itertools.product(cuts(), range(1, 16)):
        account = FakeAccount(good=good, cut_at=first[0], after=first[1])
        with suppress(PowerCut):
            transition.begin_transition(account, planned(), account.save)
        for _ in range(2):
            if account.on_disk is None:
                break
            account.crash()
            account.cut_at = account.steps + second
            with suppress(PowerCut):
                assert_fits(
                    account, transition.continue_transition(account, account.on_disk, account.save)
                )
                break
        else:
            account.crash()
            assert account.on_disk is not None
            assert_fits(
                account, transition.continue_transition(account, account.on_disk, account.save)
            )


def test_a_step_that_fails_leaves_no_mix_or_the_account_held() -> None:
    for one in range(2, 40):
        account = FakeAccount(fails=frozenset({one}))
        with suppress(Failure):
            done = transition.begin_transition(account, planned(), account.save)
            if done.phase in journal.UNDER_WAY:
                assert account.held or not account.running, "nothing runs on a mix"
            else:
                assert_fits(account, done)
        account.fails = frozenset()
        assert account.on_disk is not None
        assert_fits(account, transition.continue_transition(account, account.on_disk, account.save))


def newer(cut_at: int | None = None, *, after: bool = False) -> tuple[FakeAccount, Move]:
    """One on the newer version, who is to go back with the data of then."""
    account = FakeAccount(program=NEW, level=31, rows=20, cut_at=cut_at, after=after)
    account.snapshots["then"] = (30, 10)
    return account, replace(planned("then", NEW, OLD), label="prerollback-0.0.24")


@pytest.mark.parametrize("cut", list(cuts()))
def test_a_rollback_with_its_data_is_cut_off_anywhere(cut: tuple[int, bool]) -> None:
    account, wanted = newer(cut[0], after=cut[1])
    done = run(account, wanted)
    assert (account.program, account.level) in ((OLD, 30), (NEW, 31))
    assert account.running
    assert not account.held
    if done.phase == journal.DONE:
        assert (account.program, account.rows >= 10) == (OLD, True)
    else:
        assert account.rows >= 20, "the data of the newer version is all there"


def test_a_stale_database_that_a_snapshot_holds_does_not_come_back_by_a_rollback() -> None:
    """It had been put aside only after that snapshot was taken."""
    account, wanted = newer()
    account.with_stale = frozenset({"then"})
    done = transition.begin_transition(account, wanted, account.save)
    assert (done.phase, account.program, account.stale) == (journal.DONE, OLD, False)


def test_a_rollback_that_was_cut_off_while_switching_goes_on() -> None:
    """What it leaves is sealed: to take it back, and do it again, would be two outages more."""
    reached = []
    for cut_at, after in cuts():
        account, wanted = newer(cut_at, after=after)
        with suppress(PowerCut):
            transition.begin_transition(account, wanted, account.save)
        account.crash()
        assert account.on_disk is not None or cut_at == 1
        if account.on_disk is None or account.on_disk.phase != journal.SWITCHING:
            continue
        reached.append(cut_at)
        # cut off once more, and it still goes on
        account.cut_at = account.steps + 3
        with suppress(PowerCut):
            transition.continue_rollback(account, account.on_disk, account.save)
        account.crash()
        done = transition.continue_rollback(account, account.on_disk, account.save)
        assert (done.phase, account.program, account.level) == (journal.DONE, OLD, 30)
        assert account.running
        assert not account.held
        assert account.snapshots[done.kept or ""][1] >= 20
    assert len(reached) >= 3


def test_a_rollback_that_goes_on_and_fails_is_taken_back() -> None:
    account, wanted = newer()
    account.cut_at = 6  # before the link
    with suppress(PowerCut):
        transition.begin_transition(account, wanted, account.save)
    account.crash()
    assert account.on_disk is not None
    assert account.on_disk.phase == journal.SWITCHING
    account.snapshots["then"] = (31, 10)  # nobody can log in with that
    done = transition.continue_rollback(account, account.on_disk, account.save)
    assert (done.phase, account.program, account.level) == (journal.REVERTED, NEW, 31)
    assert account.rows >= 20


@pytest.mark.parametrize("step", [3, 4, 10])
def test_what_is_an_accounts_own_fault_is_told_apart(step: int) -> None:
    """At the stop, at the snapshot, and at the login of the new program."""

    class Own(FakeAccount):
        def _step(self, effect: object) -> None:
            try:
                super()._step(effect)
            except Failure as failure:
                raise AccountFault(str(failure)) from None

    phase = journal.REVERTED if step == 10 else journal.WAITING
    for kind, is_own in ((FakeAccount, False), (Own, True)):
        account = kind(fails=frozenset({step}))
        done = transition.begin_transition(account, planned(), account.save)
        assert (done.phase, done.left_out) == (phase, is_own)
        assert account.on_disk == done
        assert_fits(account, done)


def test_a_server_that_did_not_run_is_not_started() -> None:
    account = FakeAccount(running=False)
    done = transition.begin_transition(account, planned(), account.save)
    assert (done.phase, account.running, account.program) == (journal.DONE, False, NEW)


def test_why_going_back_failed_is_told_once_however_often_it_is_tried() -> None:
    class Full(FakeAccount):
        def restore_snapshot(self, snapshot: str, *, kept: str | None) -> None:
            raise Failure("no room")

    account = Full(good=False)
    done = transition.begin_transition(account, planned(), account.save)
    for _ in range(3):
        assert done.phase == journal.REVERTING
        assert done.reason == "no login; and going back failed: no room"
        done = transition.continue_transition(account, done, account.save)
