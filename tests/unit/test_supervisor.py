"""What the parent counts as silence of a worker."""

from __future__ import annotations

from dataclasses import replace

from t3_backup.worker.limits import Limits
from t3_backup.worker.sources import Source
from t3_backup.worker.supervisor import WorkerState

LIMITS = Limits(3600, 3600, 0, 0, lambda: 0)


def test_what_the_parent_slept_through_is_no_silence_of_a_worker() -> None:
    """Row 22. A run that was stopped at a terminal, or had no turn for a while, ends no copy."""
    state = WorkerState(LIMITS, source=Source(1, 0), pins=True)
    state.wait(3600)
    assert not state.is_silent()
    for _ in range(60):
        state.wait(0.2)
    assert state.is_silent()


def test_a_worker_that_holds_nothing_may_be_silent() -> None:
    state = WorkerState(LIMITS, source=Source(1, 0))
    for _ in range(60):
        state.wait(0.2)
    assert not state.is_silent()


def test_whoever_handles_files_is_ended_after_a_minute_at_one_of_them() -> None:
    """Row 64. The server that a restore has stopped waits for it; a restore's own limit is that of
    an account."""
    assert [replace(LIMITS, stall=stall).for_files().stall for stall in (900, 60, 4)] == [60, 60, 4]
