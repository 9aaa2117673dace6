"""The lines of JSON in which a worker reports to its parent, and what the parent believes of them.

The worker runs as the user and reads the user's bytes, so nothing it says is believed for its form:
every event is decoded here, strictly. What a worker is asked for is in `worker.operations`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Annotated, Any

from t3_backup.errors import WORKER_ERRORS, Failure, WorkerLost
from t3_backup.records import decode_record, one_of, parse_object
from t3_backup.text import printable

CHANNEL = 0  # the worker's descriptor of the socket to its parent
PHASES = ("copy", "prove", "pack", "inspect", "unpack")
MAX_LINE = 4 << 20  # bytes; a census of thousands of tables stays far below
MOST_NAMES = 100  # that one event carries

# The most that a copy may be larger than database and -wal together were when it began.
_GROWTH = 1.25
_GROWTH_BYTES = 64 << 20


def copy_limit(source_bytes: int) -> int:
    """Say below which size in bytes the copy of a source of that size stays.

    The source is the main file and the -wal.
    """
    return int(source_bytes * _GROWTH) + _GROWTH_BYTES


def _check_seconds(value: float) -> float:
    if not 0 <= value < 1 << 62:
        raise ValueError("it is out of range")
    return value


# What the fields of an event may hold. The texts are what a terminal gets to see as they are.
Count = Annotated[int, range(1 << 62)]  # of bytes, of things
Seconds = Annotated[float, _check_seconds]
Text = Annotated[str, printable]
Texts = Annotated[tuple[Text, ...], lambda texts: texts[:MOST_NAMES]]


class Event:
    """What a worker reports; the answers of each operation are with it in `worker.operations`."""


@dataclass(frozen=True)
class Phase(Event):
    """What the worker is about, and how many bytes of it there are."""

    # before any worker is heard of, the run says "start" itself
    phase: Annotated[str, one_of(PHASES)]
    total: Count


@dataclass(frozen=True)
class Silent(Event):
    """The worker has made no progress for some seconds; its parent says so, it can't itself."""


@dataclass(frozen=True)
class Progress(Event):
    """Bytes written to the copy so far, and bytes read back of it."""

    written: Count
    read: Count


@dataclass(frozen=True)
class HomeState(Event):
    """What a copy costs the home so far, and the room of the home's file system. In bytes."""

    wal_growth: Count  # of each -wal since the worker found it, in all
    free: Count
    total: Count


# The module of each event, so that a process imports those alone that it meets. On the socket its
# name is in small letters.
_OPERATIONS = "t3_backup.worker.operations."
EVENTS = {
    "Source": "t3_backup.worker.sources",
    "Phase": __name__,
    "Progress": __name__,
    "HomeState": __name__,
    "Copied": _OPERATIONS + "backup",
    "CopiedAll": _OPERATIONS + "backup",
    "Proven": _OPERATIONS + "proof",
    "ProvenAll": _OPERATIONS + "proof",
    "Packed": _OPERATIONS + "backup",
    "Inspected": _OPERATIONS + "archive",
    "Installed": _OPERATIONS + "archive",
    "Remains": _OPERATIONS + "archive",
    "Counted": _OPERATIONS + "restore",
    "Staged": _OPERATIONS + "restore",
    "CheckpointedAll": _OPERATIONS + "restore",
    "Swapped": _OPERATIONS + "restore",
    "Listed": _OPERATIONS + "legacy",
    "Activity": _OPERATIONS + "activity",
}
_NAMES = {name.lower(): name for name in EVENTS}


def encode_event(event: Event | Failure) -> bytes:
    """Make one line of `event`."""
    if isinstance(event, Failure):
        value: dict[str, Any] = {
            "event": "failed",
            "error": type(event).__name__,
            "reason": str(event),
        }
    else:
        value = {"event": type(event).__name__.lower()} | asdict(event)  # type: ignore[call-overload]  # each event is a dataclass
    return json.dumps(value).encode() + b"\n"


def decode_event(line: bytes) -> Event | Failure | None:
    """Return the event of one line, or None where the line is no JSON object.

    That is what Python itself prints when it dies. Raises WorkerLost for an object that is not one
    of ours: the worker is not what it was.
    """
    try:
        value = parse_object(line)
    except ValueError:
        return None
    name = value.pop("event", None)
    if name == "failed" and type(value.get("reason")) is str:
        error = WORKER_ERRORS.get(str(value.get("error")), Failure)
        return error(printable(value["reason"]))
    if not isinstance(name, str) or name not in _NAMES:
        raise WorkerLost(f"the worker sent what is no event: {printable(repr(line[:200]))}")
    kind: type[Event] = getattr(import_module(EVENTS[_NAMES[name]]), _NAMES[name])
    try:
        return decode_record(kind, value)
    except ValueError as error:
        raise WorkerLost(f"the worker sent an event that cannot be: {error}") from None


def shorten_list(texts: Sequence[str], most: int = 5) -> str:
    """Join the first of `texts`, and say how many more there are."""
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return "; ".join([*texts[:most], *more])
