"""Name the steps at which a version can fail its trial, and the sandbox's mark.

state      the account's data can't be read, or no copy of it be made: that is not the version's
start      it ended before it listened
serve      it never answered
pairing    nobody can log in
migration  the database went to a lower level or has another list of migrations, or the server
           speaks of a migration that failed
data       rows of people's history are gone or emptied, or can't be read
steady     it ended later, after a login
stop       it did not stop when it was asked to
"""

from __future__ import annotations

from pathlib import Path

STATE = "state"
STEPS = (STATE, "start", "serve", "pairing", "migration", "data", "steady", "stop")
GATE = "gate"  # where there was no trial at all
MARK = Path("/etc/t3-gate")  # is there in a root that was made for a trial, and nowhere else


class TurnedAway(Exception):
    """The candidate failed at a step; `slow`: only since that took longer than it may."""

    def __init__(self, step: str, reason: str, *, slow: bool = False) -> None:
        super().__init__(reason)
        self.step = step
        self.slow = slow
