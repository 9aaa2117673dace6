"""What is known of one snapshot: its name, and the manifest that lies beside it.

Pure: names and JSON in, values out. A name carries the time in UTC and the label, so that a store
can be read by eye: `state-20261124T033012Z-prebump-0.0.25.sqlite`. The keys of a manifest are an
interface and stay. It has a checksum of its own, so that a bit that flips in it is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

from t3_backup.records import GROWING, decode_record, one_of, parse_object
from t3_backup.store.census import Census
from t3_backup.store.methods import METHODS

FORMAT = 2
_READABLE = (1, FORMAT)  # without and with a checksum
_CHECKSUM = "checksum"
VERDICTS = ("verified", "suspect", "damaged")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _check_sha256(value: str) -> str:
    """Let nothing else become the name of a file."""
    if not _SHA256.fullmatch(value):
        raise ValueError("it is no SHA-256")
    return value


@dataclass(frozen=True)
class Companion:
    """The archive of the files beside the database.

    It is in the same folder, named by its content, and shared by all snapshots that have it.
    """

    JSON_KEYS = GROWING

    sha256: Annotated[str, _check_sha256]  # of the archive
    bytes: int  # of the archive
    entries: int  # files and folders in it
    content_bytes: int  # of the files in it
    # of names, sizes, times and inodes of what was packed: the same one, and it need not be read
    # again
    fingerprint: str


@dataclass(frozen=True)
class Manifest:
    """The manifest of one snapshot. Times are UTC, sizes bytes, durations seconds."""

    JSON_KEYS = GROWING

    format: int
    # orders the snapshots of an account, whatever the clock did: from 1 up; those taken over, from
    # 0 down
    sequence: int
    user: str
    name: str
    taken_at: str  # RFC 3339
    label: str | None
    bytes: int
    sha256: str
    method: Annotated[str, one_of(METHODS)]
    verdict: Annotated[str, one_of(VERDICTS)]
    reasons: tuple[str, ...]  # why it is not verified
    accepted_at: str | None  # when somebody accepted a suspect or damaged one
    t3_level: int | None
    page_size: int
    page_count: int
    source_bytes: int
    wal_growth_bytes: int
    restarts: int
    copy_seconds: float
    proof_seconds: float
    census: Census
    sqlite_version: str
    tool_version: str
    companion: Companion | None = None  # None: nothing was there, or it was not looked for
    # it was put back: what has this sequence number or a later one was taken of it
    restored_since: int | None = None
    pinned_at: str | None = None  # when somebody pinned it: it is not pruned
    stays_plain: bool = False  # packed it would take no less room

    @property
    def when(self) -> datetime:
        """`taken_at` as a time."""
        return datetime.fromisoformat(self.taken_at)

    @property
    def holds(self) -> bool:
        """True while this one stops the pruning of its account: not good, and not accepted."""
        return self.verdict != "verified" and self.accepted_at is None

    def as_json(self) -> dict[str, Any]:
        """The interface: the keys of a manifest."""
        return asdict(self) | {"reasons": list(self.reasons)}

    def to_text(self) -> str:
        """The file's content, always of today's format."""
        value = self.as_json() | {"format": FORMAT}
        return json.dumps(value | {_CHECKSUM: _checksum(value)}, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_text(text: str) -> Manifest:
        """Decode what `to_text` gave; keys of a later version are passed over.

        Raises ValueError.
        """
        value = parse_object(text)
        if value.get("format") not in _READABLE:
            raise ValueError(f"not a manifest of format {FORMAT}")
        if value["format"] == FORMAT and value.pop(_CHECKSUM, None) != _checksum(value):
            raise ValueError("it is not what was written: its checksum is another")
        manifest = decode_record(Manifest, value)
        if manifest.when.tzinfo is None:
            raise ValueError(f"taken_at {manifest.taken_at!r} has no zone")
        return manifest


def _checksum(value: dict[str, Any]) -> str:
    """SHA-256 of all the rest, as canonical JSON."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
