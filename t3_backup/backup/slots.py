"""Let so many accounts be worked on at once; one that waits or takes long keeps no other."""

from __future__ import annotations

import threading
import time

# Accounts beside those that are worked on: silent ones, whose home may never answer.
MOST_BESIDE = 16
_TURN_S = 10.0  # after which an account lets the next one begin
_LOOK_S = 0.5


class Slots:
    """The slots of a run. An account has one until it is done, or goes on beside the others.

    A silent one does that at once, and one that takes long once its turn is over; of the latter
    there are never more than slots.
    """

    def __init__(self, jobs: int, turn_seconds: float = _TURN_S) -> None:
        """Have as many slots as accounts may be worked on at once."""
        self._free = threading.Semaphore(jobs)
        self._jobs, self._turn = jobs, turn_seconds
        self._lock = threading.Lock()
        self._having: dict[str, float] = {}  # users, and since when
        self._slow: set[str] = set()  # who went on beside the others because it took long

    def take(self, user: str) -> None:
        """Wait for a slot."""
        while not self._free.acquire(timeout=_LOOK_S):
            self._end_turn()
        with self._lock:
            self._having[user] = time.monotonic()

    def give_back(self, user: str) -> None:
        """Let another account have the slot of this one; again is harmless."""
        with self._lock:
            if self._having.pop(user, None) is not None:
                self._free.release()

    def finish(self, user: str) -> None:
        """Note that an account is done, wherever it went on."""
        self.give_back(user)
        with self._lock:
            self._slow.discard(user)

    def _end_turn(self) -> None:
        """Let the one that has had its slot for too long go on beside the others."""
        with self._lock:
            user, since = min(self._having.items(), key=lambda one: one[1], default=("", 0.0))
            if not user or len(self._slow) >= self._jobs:
                return
            if time.monotonic() - since < self._turn:
                return
            del self._having[user]
            self._slow.add(user)
        self._free.release()
