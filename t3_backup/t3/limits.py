"""Say how long a step of T3 may take on a slow or busy machine before it counts as failed. Pure.

A call of the program takes 2 to 3 s of a processor, and so 30 s where ten others want it. A server
answers 3 to 16 s after its start; before that a new version migrates, and V2 copies, the database.
"""

from __future__ import annotations

STEP_SECONDS = 60.0  # patience where nobody says another one
_MIGRATED_BYTES_PER_S = 20_000_000  # of a database, at least
_LOGIN_STEPS = 5  # a mint, which cookie, two endpoints, the session
_ENDING_STEPS = 3  # a list, and then one login after the other until the time is up
UNIT_S = 15.0  # for a process of its own, beyond what its steps may take


def start_seconds(patience: float, database_bytes: int) -> float:
    """Say how long a server may take to listen that has to migrate so much first."""
    return patience + max(0, database_bytes) / _MIGRATED_BYTES_PER_S


def login_seconds(patience: float) -> float:
    """Say how long a login may take of which each step may take `patience` seconds."""
    return _LOGIN_STEPS * patience


def ending_seconds(patience: float) -> float:
    """Say how long it may take to end the logins of our checks."""
    return _ENDING_STEPS * patience
