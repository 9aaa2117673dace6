"""Name the steps at which a version can fail its trial, and the sandbox's mark.

start      it ended before it listened
serve      it never answered
pairing    nobody can log in
migration  the database went to a lower level, or the server speaks of a migration that failed
data       rows of people's history are gone or emptied, or can't be read
steady     it ended later, after a login
stop       it did not stop when it was asked to
"""

from __future__ import annotations

from pathlib import Path

STEPS = ("start", "serve", "pairing", "migration", "data", "steady", "stop")
GATE = "gate"  # where there was no trial at all
MARK = Path("/etc/t3-gate")  # is there in a root that was made for a trial, and nowhere else
