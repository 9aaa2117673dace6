"""Forecast what a bump takes of an account: time without a server, and room in its home. Pure.

Each is what it may come to, from the sizes of the databases: nobody has tried it yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from t3_backup.t3.files import DATABASE_NAME
from t3_backup.t3.servers import Activity

_STOP_AND_START_S = 4.0  # of a server with next to no data
# What an old server leaves is copied, proven and sealed in this time, and migrated by the new one.
_BYTES_PER_S = 100_000_000
_BROUGHT_BYTES_PER_S = 50_000_000  # copied, and migrated, by a program that brings it over


@dataclass(frozen=True)
class Forecast:
    """What a bump may take of one account."""

    seconds: float  # without a server
    room: int  # bytes in the home, for the way there and back
    free: int  # bytes that are free there

    @property
    def why_no_room(self) -> str:
        """Say what is lacking, and what to do; empty where there is room."""
        return why_no_room(self.free, self.room)

    def __str__(self) -> str:
        """Say it to a person."""
        room = f"takes up to {_mebibytes(self.room)} of the {self.free >> 20} MiB that are free"
        return f"about {self.seconds:.0f} s without a server; {room} in its home"


def forecast_move(
    live: Activity, own: str | None, next_one: str | None, measured: float | None = None
) -> Forecast:
    """Forecast the move of an account from a program to another.

    `own` and `next_one` are the names of the databases that they make (None: not known);
    `measured`: the seconds without a server of the account's last move.
    """
    total = sum(one.bytes for one in live.databases)
    brought = 0
    if own == DATABASE_NAME != next_one:  # where it is not known, the greater is told
        brought = sum(one.bytes for one in live.databases if one.file == own)
    least = _STOP_AND_START_S + total / _BYTES_PER_S if measured is None else measured
    seconds = least + brought / _BROUGHT_BYTES_PER_S
    # What the newer one makes of it, and the old one staged beside that. A program that brings it
    # over copies it first, and the copy goes on growing after its start.
    return Forecast(seconds, 2 * total + 2 * brought, live.free_bytes)


def why_no_room(free: int, needed: int) -> str:
    """Say what is lacking and what to do; empty where that many bytes are free."""
    if free >= needed:
        return ""
    return f"{free >> 20} MiB are free there, and a bump may take {_mebibytes(needed)}: make room"


def _mebibytes(size: int) -> str:
    return f"{max(1, size >> 20)}" if size else "0"
