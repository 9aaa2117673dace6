"""Let so many accounts be worked on at once; one that waits for its own files keeps no other."""

from __future__ import annotations

import threading

# Accounts beside those that are worked on: silent ones, whose home may never answer.
MOST_BESIDE = 16


class Slots:
    """The slots of a run. An account has one until it is done, or goes on beside the others."""

    def __init__(self, jobs: int) -> None:
        """Have as many slots as accounts may be worked on at once."""
        self._free = threading.Semaphore(jobs)
        self._lock = threading.Lock()
        self._having: set[str] = set()  # users

    def take(self, user: str) -> None:
        """Wait for a slot."""
        self._free.acquire()
        with self._lock:
            self._having.add(user)

    def give_back(self, user: str) -> None:
        """Let another account have the slot of this one; again is harmless."""
        with self._lock:
            if user not in self._having:
                return
            self._having.remove(user)
        self._free.release()
