"""What the parent and its worker say to each other: a request on the command line, then a JSON object a line.

The worker runs as the user and reads the user's bytes, so nothing it says is believed for its form: every answer is
decoded here, strictly.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from t3_backup.census import Census
from t3_backup.errors import WORKER_ERRORS, Failure, WorkerLost
from t3_backup.manifest import METHODS

PHASES = ("copy", "prove")
MAX_LINE = 4 << 20  # bytes; a census of thousands of tables stays far below

# The most that a copy may be larger than database and -wal together were when it began.
_GROWTH = 1.25
_GROWTH_BYTES = 64 << 20


def copy_limit(source_bytes: int) -> int:
    """The size in bytes that the copy of a source of `source_bytes` (main file and -wal) stays below."""
    return int(source_bytes * _GROWTH) + _GROWTH_BYTES


@dataclass(frozen=True)
class Request:
    """What a worker is to do."""

    mode: str  # look: find the source and its size; copy: copy it; prove: prove a file that nobody writes any more
    home: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    become: bool  # change to the user; False where the parent is that user already
    channel: int  # the socket to the parent
    file: int  # the new snapshot (copy), or what is to be proven, read-only (prove); -1 for look
    parent: int  # pid
    method: str  # which to begin with: online, or vacuum alone
    seconds: float  # for the whole of it
    wal_budget: int  # bytes
    mmap: bool
    share: int = 0  # of a proof: which one
    shares: int = 1  # and of how many

    def to_text(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_text(text: str) -> Request:
        """The inverse; trusted, since the parent wrote it."""
        value = json.loads(text)
        return Request(**(value | {"groups": tuple(value["groups"])}))


@dataclass(frozen=True)
class Source:
    """The live database, as found: sizes in bytes. A descriptor (O_PATH) of its folder travels along."""

    bytes: int
    wal_bytes: int


@dataclass(frozen=True)
class Phase:
    """What the worker is about, and how many bytes of it there are."""

    phase: str  # one of PHASES
    total: int


@dataclass(frozen=True)
class Progress:
    """Bytes written to the copy so far, and bytes read back of it."""

    written: int
    read: int


@dataclass(frozen=True)
class Copied:
    """A finished copy, not yet proven, and what it must agree with."""

    method: str  # online or vacuum
    source_bytes: int  # of the main file, when it was found
    wal_growth_bytes: int
    restarts: int
    seconds: float
    pinned: Census | None  # of the source, taken inside the pin; None where there was no pin
    before: Census | None  # of the source around a VACUUM, which has a moment of its own
    after: Census | None


@dataclass(frozen=True)
class Proven:
    """What SQLite's checks and the census found in a file."""

    problems: tuple[str, ...]  # of integrity_check and foreign_key_check; none: it is sound
    census: Census
    seconds: float
    sqlite_version: str


_CHOICES = {"method": METHODS, "phase": PHASES}  # the texts that a terminal gets to see as they are

Event = Source | Phase | Progress | Copied | Proven
_EVENTS: dict[str, type[Event]] = {
    "source": Source,
    "phase": Phase,
    "progress": Progress,
    "copied": Copied,
    "proven": Proven,
}


def encode(event: Event | Failure) -> bytes:
    """One line."""
    if isinstance(event, Failure):
        value: dict[str, Any] = {"event": "failed", "error": type(event).__name__, "reason": str(event)}
    else:
        value = {"event": next(name for name, kind in _EVENTS.items() if type(event) is kind)} | asdict(event)
    return json.dumps(value).encode() + b"\n"


def decode(line: bytes) -> Event | Failure | None:
    """The event of one line, or None where the line is no JSON object (what Python itself prints when it dies).

    Raises WorkerLost for an object that is not one of ours: the worker is not what it was.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    name = value.pop("event", None)
    if name == "failed" and type(value.get("reason")) is str:
        error = WORKER_ERRORS.get(str(value.get("error")), Failure)
        return error(printable(value["reason"]))
    kind = _EVENTS.get(name) if isinstance(name, str) else None
    if kind is None or set(value) != {field.name for field in fields(kind)}:
        raise WorkerLost(f"the worker sent what is no event: {printable(repr(line[:200]))}")
    try:
        return kind(**{field.name: _checked(str(field.type), field.name, value[field.name]) for field in fields(kind)})
    except ValueError as error:
        raise WorkerLost(f"the worker sent an event that cannot be: {error}") from None


def _checked(kind: str, name: str, value: Any) -> Any:
    if kind == "Census | None" and value is None:
        return None
    if kind.startswith("Census"):
        return Census.from_json(value)
    if kind == "tuple[str, ...]":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{name} is no list of texts")
        return tuple(printable(item) for item in value[:100])
    if kind == "str":
        if not isinstance(value, str) or value not in _CHOICES.get(name, (value,)):
            raise ValueError(f"{name} is {printable(repr(value))}")
        return printable(value)
    if type(value) is not int and not (kind == "float" and type(value) is float):
        raise ValueError(f"{name} is no number")
    if not 0 <= value < 1 << 62:
        raise ValueError(f"{name} is {printable(str(value))}")
    return value


def printable(text: str, most: int = 500) -> str:
    """At most `most` characters of `text`, with nothing in it that a terminal or the journal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])
