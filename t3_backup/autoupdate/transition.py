"""Order the steps by which one account gets from one program to another.

Where a step fails, the account goes back. What a step does is up to `AccountSteps`. Each phase is
on the disk before its first step (`save`), so that `continue_transition` can complete or undo what
was interrupted anywhere: the account ends on the old program with the old data or on the new with
the new, never on a mix of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from t3_backup.autoupdate import journal
from t3_backup.autoupdate.faults import AccountFault
from t3_backup.autoupdate.journal import Move
from t3_backup.errors import Failure, SystemdUnanswered, explain
from t3_backup.store.names import POSTBUMP_FAILED

Save = Callable[[Move], None]
_AND_BACK = "; and going back failed: "


class AccountSteps(Protocol):
    """Change one account's program, data and server.

    Every step may be taken again; all raise Failure and OSError. AccountFault: what is the matter
    is the account's own, and says nothing of the program.
    """

    def hold(self) -> None:
        """Let nothing of the account's start from now on, whatever happens to the machine."""

    def release(self) -> None:
        """End the hold."""

    def stop_server(self) -> None:
        """Stop the server, and prove it gone."""

    def start_server(self) -> None:
        """Start the server."""

    def server_runs(self) -> bool:
        """Tell whether the server runs, or is about to."""

    def keep_snapshot(self, label: str, *, proven: bool) -> str:
        """Seal a snapshot of what is there now, and return its name.

        `proven`: raises Failure unless it is verified.
        """

    def put_aside_stale(self, before: str, program: str) -> None:
        """Put a database aside that a newer program than `before` has made beside its own.

        Only where `program` would go on with it. It is in the snapshot that is kept, too.
        """

    def link_version(self, version: str) -> None:
        """Make `version` the account's program."""

    def restore_snapshot(self, snapshot: str, *, kept: str | None) -> None:
        """Put the data of a snapshot back.

        `kept`: the snapshot that may hold what is there now already.
        """

    def check_login(self) -> str:
        """Log in to the running server, and return the endpoint that served it."""


def begin_transition(steps: AccountSteps, move: Move, save: Save) -> Move:
    """Take all steps of a move.

    It ends `done`, `reverted`, or `waiting` where nothing was changed; `left_out` where that is the
    account's own fault. It stays under way where going back failed, and `continue_transition` tries
    again: until then the account is held in `reverting`. Raises SystemdUnanswered, and then it is
    under way, too, or waits.
    """
    ran = steps.server_runs()
    move = _enter(move, save, phase=journal.STOPPING, ran=ran, reason="", left_out=False)
    return _go_on(steps, move, save)


def continue_transition(steps: AccountSteps, move: Move, save: Save) -> Move:
    """Complete or undo a move that was interrupted in any phase.

    One to a new version that had not started yet goes back.
    """
    if move.phase == journal.STARTING:
        return _go_on(steps, move, save)
    if move.phase in journal.UNDER_WAY:
        return _take_back(steps, move, save, move.reason or "it was interrupted")
    return move


def continue_rollback(steps: AccountSteps, move: Move, save: Save) -> Move:
    """Complete or undo a move to a version that the account was on before.

    What it leaves is sealed, and what it gets is known to be good: once that is being changed, it
    goes on.
    """
    if move.phase == journal.SWITCHING:
        return _go_on(steps, move, save)
    return continue_transition(steps, move, save)


def _go_on(steps: AccountSteps, move: Move, save: Save) -> Move:
    """Take the steps from a phase on; where one fails, take them back."""
    try:
        if move.phase in (journal.STOPPING, journal.SWITCHING):
            steps.hold()
            steps.stop_server()
        if move.phase == journal.STOPPING:
            kept = steps.keep_snapshot(move.label, proven=True)
            move = _enter(move, save, phase=journal.SWITCHING, kept=kept)
        if move.phase == journal.SWITCHING:
            if move.data is None:
                steps.put_aside_stale(move.before, move.program)
            steps.link_version(move.program)
            if move.data is not None:
                steps.restore_snapshot(move.data, kept=move.kept)
                # it may hold one that was put aside only after it was taken
                steps.put_aside_stale(move.program, move.before)
            move = _enter(move, save, phase=journal.STARTING)
        return _start_server(steps, move, save)
    except SystemdUnanswered as error:
        # How its server is, is not known, and the program has not failed: that is looked at again.
        if move.phase == journal.STOPPING:
            _take_back(steps, move, save, explain(error))
        raise
    except (Failure, OSError) as error:
        move = replace(move, left_out=isinstance(error, AccountFault))
        return _take_back(steps, move, save, explain(error))


def _start_server(steps: AccountSteps, move: Move, save: Save) -> Move:
    steps.release()
    if not move.ran:
        why = "its server did not run, and was not tried"
        return _enter(move, save, phase=journal.DONE, reason=why)
    steps.start_server()
    return _enter(move, save, phase=journal.DONE, endpoint=steps.check_login(), reason="")


def _take_back(steps: AccountSteps, move: Move, save: Save, reason: str) -> Move:
    """Undo a move.

    Where nothing was changed yet, or all is put back already, only the server is started again.
    Data that was put back is not put back again: somebody may have worked with it since.
    """
    phase = journal.WAITING if move.phase == journal.STOPPING else journal.REVERTED
    try:
        if move.phase not in (journal.STOPPING, journal.RETURNING):
            wrote = move.wrote or move.phase == journal.STARTING
            move = _enter(move, save, phase=journal.REVERTING, wrote=wrote, reason=reason)
            steps.hold()
            steps.stop_server()
            if move.wrote and move.failed is None:
                move = _keep_what_failed(steps, move, save)
            steps.link_version(move.before)
            assert move.kept is not None
            steps.restore_snapshot(move.kept, kept=move.failed)
            move = _enter(move, save, phase=journal.RETURNING)
        steps.release()
        if move.ran:
            steps.start_server()
            move = replace(move, endpoint=steps.check_login())
        return _enter(move, save, phase=phase, reason=reason)
    except (Failure, OSError) as error:
        first, _, _ = reason.partition(_AND_BACK)  # it may have been tried before
        return _enter(move, save, reason=f"{first}{_AND_BACK}{explain(error)}")


def _keep_what_failed(steps: AccountSteps, move: Move, save: Save) -> Move:
    """Keep what the new program wrote; if that fails, a restore keeps it, too."""
    try:
        return _enter(move, save, failed=steps.keep_snapshot(POSTBUMP_FAILED, proven=False))
    except (Failure, OSError):
        return move


def _enter(move: Move, save: Save, **changes: object) -> Move:
    move = replace(move, **changes)  # type: ignore[arg-type]
    save(move)
    return move
