"""The format of a catalog's file: slots of two lines, each with a checksum. Pure.

Each entry has a slot, and is in it twice. A line is JSON, filled up with blanks to a fixed length:
so it can be overwritten in its place, and read by eye.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NamedTuple

from t3_backup.records import GROWING, decode_record, one_of, parse_object
from t3_backup.store.catalog import OUTCOMES, STATES, Entry, Proof
from t3_backup.text import format_time, printable

LINE = 512  # bytes: a sector, which a disk writes whole
SLOT = 2 * LINE
BLANK_SLOT = (b" " * (LINE - 1) + b"\n") * 2
_FORMAT = 1
_CHECKSUM_DIGITS = 16


class Slot(NamedTuple):
    """The place of one entry, as it was read."""

    entry: Entry | None  # None: it is free
    turn: int = 0  # of the change that wrote it
    broken: bool = False  # it had one, and neither line can be read


@dataclass(frozen=True)
class _Proof:
    JSON_KEYS = GROWING

    when: str  # RFC 3339, UTC
    outcome: Annotated[str, one_of(OUTCOMES)]
    reason: str = ""


@dataclass(frozen=True)
class _Line:
    """What a line says."""

    JSON_KEYS = GROWING

    format: Annotated[int, range(_FORMAT, _FORMAT + 1)]
    turn: Annotated[int, range(1 << 62)]  # a later one counts
    name: str
    state: Annotated[str, one_of(STATES)]
    proof: _Proof | None


def parse_slots(data: bytes) -> list[Slot]:
    """Parse a whole file. Raises ValueError for what is no catalog."""
    whole = len(data) - len(data) % SLOT
    if not _is_blank(data[whole:]):  # of blanks it was growing
        raise ValueError("its end is missing")
    slots = [_parse_slot(data[at : at + SLOT]) for at in range(0, whole, SLOT)]
    if not any(slot.entry or slot.broken for slot in slots):  # it was made with one at least
        raise ValueError("there is nothing in it")
    return slots


def entries_of(slots: Iterable[Slot]) -> dict[str, Entry]:
    """Return the entries by name."""
    return {slot.entry.name: slot.entry for slot in slots if slot.entry is not None}


def find_free(slots: list[Slot], wanted: set[str]) -> list[int]:
    """List the slots that may be taken: those never used, then what went, the longest ago first.

    Those of the names that are `wanted` keep theirs.
    """
    unused = [at for at, slot in enumerate(slots) if slot.entry is None]
    gone = [
        (slot.turn, at)
        for at, slot in enumerate(slots)
        if slot.entry is not None
        and slot.entry.state == "removed"
        and slot.entry.name not in wanted
    ]
    return [*unused, *(at for _, at in sorted(gone))]


def _parse_slot(data: bytes) -> Slot:
    """Parse a slot: the later of its copies counts, as long as there is one that can be read."""
    if _is_blank(data):  # most are: a file grows by many
        return Slot(None)
    copies = data[:LINE], data[LINE:]
    found = [one for one in map(_from_line, copies) if one is not None]
    if found:
        return max(found, key=lambda slot: slot.turn)
    # what was cut short when it was written first leaves the second copy blank
    return Slot(None, broken=not _is_blank(copies[1]))


def _is_blank(data: bytes) -> bool:
    return not data.strip(b" \n\0")


def to_line(entry: Entry, turn: int) -> bytes:
    """Write the line of an entry; a reason that is too long for it is cut.

    Raises OSError where its name is.
    """
    reason = "" if entry.proof is None else printable(entry.proof.reason)
    while True:
        proof = entry.proof and {
            "when": format_time(entry.proof.when),
            "outcome": entry.proof.outcome,
            "reason": reason,
        }
        value = {"format": _FORMAT, "turn": turn, "name": entry.name}
        value |= {"state": entry.state, "proof": proof}
        line = json.dumps(value | {"checksum": _checksum(value)}).encode()
        if len(line) < LINE:
            return line.ljust(LINE - 1) + b"\n"
        if not reason:
            raise OSError(errno.ENAMETOOLONG, "the name is too long for the catalog", entry.name)
        reason = reason[: -max(1, (len(line) - LINE) // 6)]


def as_read(entry: Entry) -> Entry:
    """Return an entry as it will be read again. Raises as `to_line` does."""
    slot = _from_line(to_line(entry, 0))
    assert slot is not None
    assert slot.entry is not None
    return slot.entry


def _from_line(data: bytes) -> Slot | None:
    """Decode a line; None where it is none."""
    try:
        value = parse_object(data)
        if value.pop("checksum", None) != _checksum(value):
            return None
        line = decode_record(_Line, value)
        proof = None
        if line.proof is not None:
            when = datetime.fromisoformat(line.proof.when)
            if when.tzinfo is None:
                return None
            proof = Proof(when, line.proof.outcome, line.proof.reason)  # type: ignore[arg-type]
    except ValueError:
        return None
    return Slot(Entry(line.name, line.state, proof), line.turn)  # type: ignore[arg-type]


def _checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_CHECKSUM_DIGITS]
