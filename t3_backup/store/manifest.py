"""What is known of one snapshot: the manifest that lies beside its images.

Pure: JSON in, values out. A snapshot holds all databases of an account, each as an image of its
own. The keys of a manifest are an interface and stay. It has a checksum of its own, so that a bit
that flips in it is found.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Annotated, Any

from t3_backup.records import GROWING, decode_record, one_of, parse_object
from t3_backup.store.census import Census
from t3_backup.store.companion import Companion
from t3_backup.store.methods import METHODS
from t3_backup.store.names import image_stem
from t3_backup.t3 import databases
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.t3.ledger import Ledger, check_ledger

FORMAT = 3
_CHECKED = (2, FORMAT)  # with a checksum
_READABLE = (1, *_CHECKED)
_CHECKSUM = "checksum"
VERDICTS = ("verified", "suspect", "damaged", "unproven")
_LETS_PRUNE = ("verified", "unproven")  # of these nothing is lost, as far as can be told


@dataclass(frozen=True)
class DatabaseRecord:
    """One database of a snapshot, and its image. Sizes bytes, durations seconds."""

    JSON_KEYS = GROWING

    file: Annotated[str, databases.require_name]  # its name beside the others
    live: bool  # whether it is the one that the server worked with; one of a snapshot is
    bytes: int
    sha256: str
    method: Annotated[str, one_of(METHODS)]
    verdict: Annotated[str, one_of(VERDICTS)]
    reasons: tuple[str, ...]  # why it is not verified
    t3_level: int | None
    page_size: int
    page_count: int
    source_bytes: int
    wal_growth_bytes: int
    restarts: int
    copy_seconds: float
    proof_seconds: float
    census: Annotated[Census, GROWING]  # of earlier versions, and of later ones
    sqlite_version: str
    stays_plain: bool = False  # packed it would take no less room
    # T3's migrations, by id and name; None: it is none of T3's, or of a version before
    ledger: Annotated[Ledger, check_ledger] | None = None
    moment: str = ""  # RFC 3339, UTC: what was committed by then is in it; empty: `taken_at`


_OF_A_DATABASE = frozenset(one.name for one in fields(DatabaseRecord))


@dataclass(frozen=True)
class Missing:
    """A database that was there and is not in the snapshot."""

    JSON_KEYS = GROWING

    file: Annotated[str, databases.require_name]
    reason: str


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
    verdict: Annotated[str, one_of(VERDICTS)]  # the worst of its databases'
    reasons: tuple[str, ...]  # why it is not verified
    accepted_at: str | None  # when somebody accepted a suspect or damaged one
    databases: tuple[DatabaseRecord, ...]  # in the order of their files' names
    tool_version: str
    missing: tuple[Missing, ...] = ()  # what else was there: then the snapshot is not whole
    pin_seconds: float = 0.0  # between the moments of the first and the last database
    companion: Companion | None = None  # None: nothing was there, or it was not looked for
    # it was put back: what has this sequence number or a later one was taken of it
    restored_since: int | None = None
    pinned_at: str | None = None  # when somebody pinned it: it is not pruned

    @property
    def live(self) -> DatabaseRecord:
        """The database that the server worked with."""
        return next(one for one in self.databases if one.live)

    @property
    def when(self) -> datetime:
        """`taken_at` as a time."""
        return datetime.fromisoformat(self.taken_at)

    @property
    def is_good(self) -> bool:
        """Whether all that there was is in it, and was proven."""
        return self.verdict == "verified" and not self.missing

    @property
    def holds(self) -> bool:
        """True while this one stops the pruning of its account: not good, and not accepted."""
        return self.verdict not in _LETS_PRUNE and self.accepted_at is None

    @property
    def total_bytes(self) -> int:
        """Bytes of all its images."""
        return sum(one.bytes for one in self.databases)

    @property
    def images(self) -> tuple[StoredDatabase, ...]:
        """Its databases, each with the name of its image.

        That is the snapshot's own for T3's first database, or else for the live one.
        """
        files = {one.file for one in self.databases}
        first = DATABASE_NAME if DATABASE_NAME in files else self.live.file
        return tuple(
            StoredDatabase(
                self, one, self.name if one.file == first else image_stem(self.name, one.file)
            )
            for one in self.databases
        )

    @property
    def live_image(self) -> StoredDatabase:
        """The image of the database that the server worked with."""
        return next(image for image in self.images if image.record.live)

    def image_of(self, file: str) -> StoredDatabase | None:
        """Return its image of the database `file`; None where it has none."""
        return next((one for one in self.images if one.file == file), None)

    def with_live(self, **changes: Any) -> Manifest:
        """Return the same with other values of its live database."""
        return self.with_database(replace(self.live, **changes))

    def with_database(self, record: DatabaseRecord) -> Manifest:
        """Return the same with another record of one of its databases."""
        others = [one for one in self.databases if one.file != record.file]
        return replace(self, databases=sort_databases([*others, record]))

    def as_json(self) -> dict[str, Any]:
        """The interface: its keys, and as keys of its own those of its live database."""
        of_live = {
            k: v for k, v in asdict(self.live).items() if k not in ("live", "moment", "ledger")
        }
        return of_live | _as_json(self)

    def to_text(self) -> str:
        """The file's content, in the snapshot's own format: no later version changes that."""
        if self.format == FORMAT:
            value = _as_json(self)
        else:
            value = {k: v for k, v in self.as_json().items() if k not in _OF_FORMAT_3}
            value["format"] = 2
        return json.dumps(value | {_CHECKSUM: _checksum(value)}, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_text(text: str) -> Manifest:
        """Decode what `to_text` gave; keys of a later version are passed over.

        Raises ValueError.
        """
        value = parse_object(text)
        if value.get("format") not in _READABLE:
            raise ValueError(f"not a manifest of format {FORMAT}")
        if value["format"] in _CHECKED and value.pop(_CHECKSUM, None) != _checksum(value):
            raise ValueError("it is not what was written: its checksum is another")
        if value["format"] != FORMAT:  # of one database, whose keys are among the others
            of_one = {key: one for key, one in value.items() if key in _OF_A_DATABASE}
            value["databases"] = [of_one | {"file": DATABASE_NAME, "live": True}]
        manifest = decode_record(Manifest, value)
        if manifest.when.tzinfo is None:
            raise ValueError(f"taken_at {manifest.taken_at!r} has no zone")
        _check_databases(manifest)
        return manifest


# What a manifest of one database says of itself, which those of earlier formats don't.
_OF_FORMAT_3 = frozenset({"databases", "missing", "pin_seconds", "file"})


@dataclass(frozen=True)
class StoredDatabase:
    """One database of one snapshot, as it is stored: an image, with a name of its own."""

    snapshot: Manifest
    record: DatabaseRecord
    name: str  # of the image, without its ending

    @property
    def file(self) -> str:
        """The name of the database."""
        return self.record.file

    @property
    def sequence(self) -> int:
        """The number of its snapshot."""
        return self.snapshot.sequence

    @property
    def bytes(self) -> int:
        """The size of the image."""
        return self.record.bytes

    @property
    def sha256(self) -> str:
        """The SHA-256 of the image."""
        return self.record.sha256

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return self.record.page_size

    @property
    def page_count(self) -> int:
        """How many pages it has."""
        return self.record.page_count


def sort_databases(found: list[DatabaseRecord]) -> tuple[DatabaseRecord, ...]:
    """Return the records in the order that a manifest has them in."""
    return tuple(sorted(found, key=lambda one: one.file))


def _as_json(manifest: Manifest) -> dict[str, Any]:
    return asdict(manifest) | {"reasons": list(manifest.reasons)}


def _check_databases(manifest: Manifest) -> None:
    """Raise ValueError where the databases can't be those of a snapshot."""
    files = Counter(one.file for one in manifest.databases)
    if sum(one.live for one in manifest.databases) != 1 or max(files.values()) > 1:
        raise ValueError("one of its databases, each with a name of its own, is to be the live one")
    names = Counter(one.name for one in manifest.images)
    if max(names.values()) > 1:
        raise ValueError("two of its databases would have one image")


def _checksum(value: Mapping[str, Any]) -> str:
    """SHA-256 of all the rest, as canonical JSON."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
