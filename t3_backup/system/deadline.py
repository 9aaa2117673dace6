"""A moment by which something must be done, and the time that is left until then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Self


class Deadline(NamedTuple):
    """A moment of a clock that never goes back. Seconds."""

    at: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Self:
        """Return the deadline that is so many seconds from now."""
        return cls(clock() + seconds, clock)

    def left(self) -> float:
        """Return the seconds until then; 0 once it has passed."""
        return max(0.0, self.at - self.clock())

    def passed(self) -> bool:
        """Tell whether no time is left."""
        return self.left() == 0

    def share(self, part: float) -> Self:
        """Return the earlier deadline that leaves a part of the time that is left now."""
        return type(self).after(self.left() * part, self.clock)
