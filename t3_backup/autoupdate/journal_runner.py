"""Run the moves of a journal: hold the store, save each phase, report the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from t3_backup.autoupdate import journal
from t3_backup.autoupdate.account_steps import LiveSteps
from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.login_checks import note_move
from t3_backup.autoupdate.snapshots import describe_loss
from t3_backup.autoupdate.transition import Save
from t3_backup.errors import LockHeld, SystemdUnanswered
from t3_backup.text import format_time, utc_now

Transition = Callable[[LiveSteps, Move, Save], Move]
# for a run of the backup that holds the store while a server is about to be stopped
_STORE_WAIT_S = 900.0
# where one may be down already: for what a bump that was killed has left, which ends by itself
_INTERRUPTED_WAIT_S = 3600.0
_WAIT_AT_ONCE_S = 5.0  # then it is seen whether somebody wants an end
_LONG_LOGIN_S = 5.0


def now() -> str:
    """Give the time as a journal has it: RFC 3339, UTC."""
    return format_time(utc_now())


def run_move(context: Context, plan: Journal, wanted: Move, transition: Transition) -> Journal:
    """Begin or continue one move with the store held, and return the new journal."""
    latest = plan

    def save(state: Move) -> None:
        nonlocal latest
        latest = latest.with_move(state)
        context.journals.save(latest)

    steps = LiveSteps(
        server=context.server(wanted.user),
        installations=context.installations,
        snapshots=context.snapshots,
        settings=context.settings,
        warn=context.warn,
    )
    wait = _INTERRUPTED_WAIT_S if wanted.phase in journal.UNDER_WAY else _STORE_WAIT_S
    with _hold_store(context, wait):
        try:
            done = transition(steps, wanted, save)
        except SystemdUnanswered as error:
            what = f"{wanted.user}: systemd did not answer, so it stays as it is for now"
            raise SystemdUnanswered(f"{what}: {error}; next: t3-autoupdate drain") from None
        if done.phase == journal.DONE and done.ran and steps.has_stopped:
            save(replace(done, seconds=round(sum(steps.downtime.values()), 1)))
    _report_move(context, done, steps)
    note_move(context, done)
    return latest


def finish_journal(context: Context, plan: Journal, result: str) -> None:
    """Move a bump or rollback that has ended, whatever it came to, to the history."""
    if plan.kind != "bump":
        context.installations.lower_default()
    context.journals.end(replace(plan, result=result, ended=now()))


@contextmanager
def _hold_store(context: Context, seconds: float) -> Iterator[None]:
    """Hold the store; wait so long for another run. Raises LockHeld, Cancelled and StoreError."""
    until = time.monotonic() + seconds
    with ExitStack() as held:
        while True:
            left = max(0.0, until - time.monotonic())
            try:
                held.enter_context(context.snapshots.hold_store(min(left, _WAIT_AT_ONCE_S)))
                break
            except LockHeld:
                context.raise_if_stopped("the rest stays as it is: t3-autoupdate drain")
                if left <= _WAIT_AT_ONCE_S:
                    raise
        yield


def _report_move(context: Context, done: Move, steps: LiveSteps) -> None:
    """Say what became of a move, and how long there was no server."""
    downtime = steps.downtime
    without = f", {sum(downtime.values()):.1f} s without a server" if downtime and done.ran else ""
    if done.phase == journal.DONE:
        long = steps.login_seconds > _LONG_LOGIN_S
        check = f", login check {steps.login_seconds:.1f} s" if long else ""
        how = f"login by {done.endpoint}{without}{check}" if done.endpoint else done.reason
        context.say(f"{done.user}: on {done.program}, before on {done.before} ({how})")
    elif done.phase == journal.REVERTED:
        parts = ", ".join(f"{step} {seconds:.1f}" for step, seconds in downtime.items())
        without += f" ({parts})" if without else ""
        back = f"back on {done.before} with the data of {done.kept}{without}"
        context.warn(f"{done.user}: {done.program} failed: {done.reason}; {back}")
        _report_loss(context, done)
    elif done.phase == journal.WAITING:
        why = done.reason.removeprefix(f"{done.user}: ")
        still = f"nothing was changed, still on {done.before}"
        context.warn(f"{done.user}: {still}: {why}{without}")
    else:
        held = context.installations.is_held(done.user)
        where = "IS DOWN, and held" if held else f"is on {done.before}, and not well"
        context.warn(f"{done.user}: {where}: {done.reason}; mend that, then: t3-autoupdate resume")


def _report_loss(context: Context, done: Move) -> None:
    if not done.wrote:
        return
    known = {one.name: one for one in context.snapshots.list_snapshots(done.user)}
    kept, failed = known.get(done.kept or ""), known.get(done.failed or "")
    if kept is None or failed is None:
        where = "is in the newest snapshot with the label prerestore"
        context.warn(f"{done.user}: what was written on {done.program} {where}")
        return
    lost = describe_loss(failed.live.census, kept.live.census)
    what = f"written on {done.program} and no longer there: {lost}"
    context.warn(f"{done.user}: {what}; it is in {failed.name}")
