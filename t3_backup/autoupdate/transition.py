"""One account from one program to another, and back again where that fails: the order of the steps, and nothing else.

What a step does is `Ground`'s. Each phase is on the disk before its first step (`save`), so that `go_on` can complete or undo what
was interrupted anywhere: it ends in the old program with the old data or in the new with the new, never in a mix of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from t3_backup.autoupdate import journal
from t3_backup.autoupdate.journal import Move
from t3_backup.errors import Failure, explain
from t3_backup.store.names import POSTBUMP_FAILED

Save = Callable[[Move], None]
_AND_BACK = "; and going back failed: "


class AccountSteps(Protocol):
    """One account's program, data and server. Every step may be taken again; they raise Failure and OSError."""

    def hold(self) -> None:
        """Nothing of the account's starts from now on, whatever happens to the machine."""

    def release(self) -> None:
        """End the hold."""

    def stop(self) -> None:
        """Stop the server, and prove it gone."""

    def start(self) -> None:
        """Start the server."""

    def runs(self) -> bool:
        """Whether the server runs, or is to."""

    def keep(self, label: str, *, proven: bool) -> str:
        """Seal a snapshot of what is there now; its name. `proven`: one that is not verified is none."""

    def link(self, version: str) -> None:
        """Let the program be this one."""

    def put_back(self, snapshot: str) -> None:
        """Let the data be what a snapshot holds."""

    def check(self) -> str:
        """Log in to the running server as a browser does; the endpoint that served it."""


def begin_transition(ground: AccountSteps, move: Move, save: Save) -> Move:
    """Do it; what it came to: `done`, `reverted`, or `waiting` where it was given up before anything was changed.

    It stays under way where going back failed, and `go_on` tries again: in `reverting` the account is held until then.
    """
    move = _enter(move, save, phase=journal.STOPPING, ran=ground.runs(), reason="")
    try:
        ground.hold()
        ground.stop()
        move = _enter(move, save, phase=journal.SWITCHING, kept=ground.keep(move.label, proven=True))
        ground.link(move.program)
        if move.data is not None:
            ground.put_back(move.data)
        move = _enter(move, save, phase=journal.STARTING)
        return _start(ground, move, save)
    except (Failure, OSError) as error:
        return _back(ground, move, save, explain(error))


def continue_transition(ground: AccountSteps, move: Move, save: Save) -> Move:
    """Complete or undo a move that was interrupted in any phase."""
    if move.phase == journal.STARTING:
        try:
            return _start(ground, move, save)
        except (Failure, OSError) as error:
            return _back(ground, move, save, explain(error))
    if move.phase in journal.UNDER_WAY:
        return _back(ground, move, save, move.reason or "it was interrupted")
    return move


def _start(ground: AccountSteps, move: Move, save: Save) -> Move:
    ground.release()
    if not move.ran:
        return _enter(move, save, phase=journal.DONE, reason="its server did not run, and was not tried")
    ground.start()
    return _enter(move, save, phase=journal.DONE, endpoint=ground.check(), reason="")


def _back(ground: AccountSteps, move: Move, save: Save, reason: str) -> Move:
    """Undo it. Where nothing was changed yet, or all is put back already, the server starts again and that is all.

    What is put back is not put back again: somebody may have worked with it since.
    """
    untouched = move.phase == journal.STOPPING
    try:
        if move.phase not in (journal.STOPPING, journal.RETURNING):
            move = _enter(move, save, phase=journal.REVERTING, wrote=move.wrote or move.phase == journal.STARTING, reason=reason)
            ground.hold()
            ground.stop()
            if move.wrote and move.failed is None:
                move = _keep_what_failed(ground, move, save)
            ground.link(move.before)
            assert move.kept is not None
            ground.put_back(move.kept)
            move = _enter(move, save, phase=journal.RETURNING)
        ground.release()
        if move.ran:
            ground.start()
            endpoint = ground.check()
            move = replace(move, endpoint=endpoint)
        return _enter(move, save, phase=journal.WAITING if untouched else journal.REVERTED, reason=reason)
    except (Failure, OSError) as error:
        first, _, _ = reason.partition(_AND_BACK)  # it may have been tried before
        return _enter(move, save, reason=f"{first}{_AND_BACK}{explain(error)}")


def _keep_what_failed(ground: AccountSteps, move: Move, save: Save) -> Move:
    """What was written on the new program is kept; what can't be is no reason to stay there (a restore keeps it, too)."""
    try:
        return _enter(move, save, failed=ground.keep(POSTBUMP_FAILED, proven=False))
    except (Failure, OSError):
        return move


def _enter(move: Move, save: Save, **changes: object) -> Move:
    move = replace(move, **changes)  # type: ignore[arg-type]
    save(move)
    return move
