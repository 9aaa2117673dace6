"""Say what one worker may take: seconds, bytes of the disk, bytes of the -wal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

_FILES_STALL_S = 60.0

# seconds that a worker says nothing, at most, which only looks what there is
LOOK_STALL = 15


@dataclass(frozen=True)
class Limits:
    """What one worker may take. Seconds and bytes."""

    seconds: float
    stall: float
    wal_budget: int
    reserve: int  # bytes of the store's file system that stay free
    free_bytes: Callable[[], int]  # on the store's file system
    # the same of the source's, while its -wal grows; None: by its size
    home_reserve: int | None = 0
    # bytes that one more copy may take of what the account is allowed; None: there is no limit to
    # it
    allowance: int | None = None

    def for_files(self) -> Limits:
        """Return those of a worker that tells of each file it handles.

        One that hangs at a file must not keep the server down that a restore has stopped.
        """
        return replace(self, stall=min(self.stall, _FILES_STALL_S))

    def room(self) -> int:
        """Return the bytes that a copy may take now."""
        left = self.free_bytes() - self.reserve
        return max(0, left if self.allowance is None else min(left, self.allowance))
