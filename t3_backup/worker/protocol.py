"""What the parent and its worker say to each other: a request on the command line, then a JSON object a line.

The worker runs as the user and reads the user's bytes, so nothing it says is believed for its form: every answer is
decoded here, strictly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from t3_backup.errors import WORKER_ERRORS, Failure, WorkerLost
from t3_backup.store.census import Census
from t3_backup.store.methods import METHODS
from t3_backup.system.file_identity import FileIdentity
from t3_backup.system.sqlite import SIDECARS
from t3_backup.t3 import databases
from t3_backup.text import printable

MODES = (
    "look",  # find the source and its size
    "copy",  # copy it
    "prove",  # prove a file that nobody writes any more
    "survey",  # name the snapshots of earlier days in a folder
    "fetch",  # copy one of them
    "discard",  # remove it
    "count",  # take the census of the live database
    "stage",  # write a snapshot beside it
    "fold",  # bring all of the old state into its one file
    "clone",  # copy that file as it is
    "exchange",  # let what was staged and the old one change places
    "pack",  # make an archive of what is beside the database
    "inspect",  # read such an archive to its end
    "unpack",  # bring its content beside the live one
    "swap",  # let that and the live one change places, or remove it
    "heal",  # complete or undo an exchange that was interrupted
)
PHASES = ("copy", "prove", "pack", "inspect", "unpack")
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

    mode: str  # what to do: one of MODES
    home: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    become: bool  # change to the user; False where the parent is that user already
    channel: int  # the socket to the parent
    file: int  # the new snapshot (copy, fetch), or what is to be proven, read-only (prove); else -1
    parent: int  # pid
    seconds: float  # for the whole of it
    wal_budget: int  # bytes
    method: str = "online"  # of a copy, which to begin with: online, or vacuum alone
    mmap: bool = True
    share: int = 0  # of a proof: which one
    shares: int = 1  # and of how many
    folder: int = -1  # O_PATH descriptor of a folder with snapshots of earlier days (survey, fetch, discard)
    name: str = ""  # of one in it (fetch, discard), or of the one after which to begin (survey)
    aside: str = ""  # name of what is staged beside the live database (stage, exchange, heal)
    old: FileIdentity | None = None  # the live database as it was seen (clone, exchange, heal)
    staged: FileIdentity | None = None  # what was staged (heal)
    beside: tuple[str, ...] = ()  # endings of what is beside it and goes with it (exchange, heal)
    begun: bool = False  # whether its exchange may have been (heal)
    keep: bool = False  # whether what comes out of it stays (heal)
    taken: Census | None = None  # of it (clone)
    limit: int = 0  # bytes of content (pack, inspect, unpack)
    known: str = ""  # a fingerprint that need not be packed again (pack)
    install: bool = False  # whether what was unpacked is to be in place (swap)
    sealed: dict[str, str] = field(default_factory=dict)  # as in Intent (swap)
    since: float = 0.0  # when its fetch began, a time of time.time(): what was changed later is not discarded

    def to_text(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_text(text: str) -> Request:
        """The inverse; trusted, since the parent wrote it."""
        value = json.loads(text)
        old, staged, taken = value["old"], value["staged"], value["taken"]
        return Request(
            **value
            | {
                "groups": tuple(value["groups"]),
                "beside": tuple(value["beside"]),
                "old": None if old is None else FileIdentity.from_json(old),
                "staged": None if staged is None else FileIdentity.from_json(staged),
                "taken": None if taken is None else Census.from_json(taken),
            }
        )


@dataclass(frozen=True)
class Source:
    """The live database, as found: sizes in bytes. A descriptor (O_PATH) of its folder travels along."""

    bytes: int
    wal_bytes: int
    others: tuple[str, ...] = ()  # names of databases beside it that are not copied, databases.MOST at most


@dataclass(frozen=True)
class Phase:
    """What the worker is about, and how many bytes of it there are."""

    phase: str  # one of PHASES; before any worker is heard of, the run says "start" itself
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


@dataclass(frozen=True)
class Named:
    """Names of files, without folders: those that a survey found, or the one that was discarded."""

    names: tuple[str, ...]  # at most 100


@dataclass(frozen=True)
class Counted:
    """What is in the live database now."""

    census: Census


@dataclass(frozen=True)
class Staged:
    """A snapshot was written beside the live database, durably."""

    live: FileIdentity | None  # the live database, as it was then; None: there is none
    staged: FileIdentity | None  # what was written
    census: Census  # of what was written, rows not counted


@dataclass(frozen=True)
class Folded:
    """The old state, and whether all of it is in its one file."""

    old: FileIdentity | None  # None: there is no live database
    folded: bool
    reason: str  # why not
    census: Census | None  # of what was folded
    beside: tuple[str, ...]  # endings of what is beside it still


@dataclass(frozen=True)
class Healed:
    """What is in the place of the live database, after an exchange, or one that was interrupted."""

    state: str  # one of STATES
    held: bool  # whether what came out stays beside it, since another process has it open


@dataclass(frozen=True)
class Packed:
    """An archive of what is beside a database, or the word that it would be the one that is known."""

    entries: int  # files and folders
    content_bytes: int  # of the files
    fingerprint: str  # empty: it can't be told whether it is the same next time
    unchanged: bool  # nothing was written
    passed: tuple[str, ...]  # what was not packed, and why
    sealed: tuple[str, ...]  # NAME=MARK of each name beneath which all was packed


@dataclass(frozen=True)
class Inspected:
    """What was found in an archive that was read to its end."""

    entries: int
    content_bytes: int


@dataclass(frozen=True)
class Swapped:
    """What is left of an exchange of what is beside a database; names of files are beneath its folder."""

    left: tuple[str, ...]  # what lies there out of place
    reasons: tuple[str, ...]  # why
    missing: tuple[str, ...]  # what could not be put in place, and why


STATES = ("old", "new", "other")  # other: neither, and nothing is left of the exchange
# The texts that a terminal gets to see as they are.
_CHOICES = {"method": METHODS, "phase": PHASES, "state": STATES, "beside": SIDECARS}

Event = Source | Phase | Progress | Copied | Proven | Named | Counted | Staged | Folded | Healed | Packed | Inspected | Swapped
_EVENTS: dict[str, type[Event]] = {
    "source": Source,
    "phase": Phase,
    "progress": Progress,
    "copied": Copied,
    "proven": Proven,
    "named": Named,
    "counted": Counted,
    "staged": Staged,
    "folded": Folded,
    "healed": Healed,
    "packed": Packed,
    "inspected": Inspected,
    "swapped": Swapped,
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
    if kind is None or set(value) != {one.name for one in fields(kind)}:
        raise WorkerLost(f"the worker sent what is no event: {printable(repr(line[:200]))}")
    try:
        return kind(**{one.name: _checked(str(one.type), one.name, value[one.name]) for one in fields(kind)})
    except ValueError as error:
        raise WorkerLost(f"the worker sent an event that cannot be: {error}") from None


def _checked(kind: str, name: str, value: Any) -> Any:
    if kind == "Census | None" and value is None:
        return None
    if kind.startswith("Census"):
        return Census.from_json(value)
    if kind == "FileIdentity | None":
        return None if value is None else FileIdentity.from_json(value)
    if kind == "bool":
        if type(value) is not bool:
            raise ValueError(f"{name} is no truth value")
        return value
    if kind == "tuple[str, ...]":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{name} is no list of texts")
        if name == "others" and not (len(value) <= databases.MOST and all(map(databases.is_uncovered, value))):
            raise ValueError(f"{name} is {printable(repr(value))}")
        if not set(value) <= set(_CHOICES.get(name, value)):
            raise ValueError(f"{name} is {printable(repr(value))}")
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


def shortened(texts: Sequence[str], most: int = 5) -> str:
    """The first of `texts`, as one, and how many more there are."""
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return "; ".join([*texts[:most], *more])
