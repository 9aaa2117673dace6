"""What a worker can be asked for: one table of the operations, and the request of each.

A new operation is an entry of OPERATIONS with its dataclass, a function of a module in
`worker.child`, and its caller.

A worker's command line has the name of its operation alone, and so everybody may read it. The
request comes by the socket: it holds names of the user's tables, and is of any length.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Generic, NamedTuple, TypeVar, get_args

from t3_backup.records import decode_record, parse_object
from t3_backup.t3.files import STATE_FOLDER
from t3_backup.worker.protocol import Event

A = TypeVar("A", bound=Event)


class Operation(Generic[A]):
    """A request, as a frozen dataclass of exactly what it needs.

    `A` is the event that answers it.
    """

    @classmethod
    def answer_type(cls) -> type[A]:
        """Return the event that answers it."""
        [answer] = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]
        found: type[A] = answer
        return found


class Entry(NamedTuple):
    """What is known of an operation without importing it."""

    request: str  # its dataclass
    group: str  # the module of this package that has the dataclass and the answer
    child: str  # the module of `worker.child` that serves it, by a function `serve_NAME`
    # whether it fills the file that the parent gives it, whose growth is limited
    writes: bool = False
    # whether it is about the live database as a backup finds it, and tells of that first
    locates: bool = False
    vfs: bool = False  # whether SQLite reads or writes the parent's file, through the VFS t3copy
    clones: bool = False  # whether it may share the extents of a file
    # whether it holds a moment of a live database, and tells all the while what that costs
    pins: bool = False
    # whether it ends a restore that is past its point of no return: a server waits for it
    ends: bool = False


OPERATIONS = {
    "find_database": Entry("FindDatabase", "backup", "locate", locates=True),
    "copy_database": Entry(
        "CopyDatabase", "backup", "copy", writes=True, locates=True, vfs=True, pins=True
    ),
    "copy_databases": Entry(
        "CopyDatabases", "backup", "copy_all", locates=True, vfs=True, pins=True
    ),
    "check_integrity": Entry("CheckIntegrity", "proof", "integrity", vfs=True),
    "check_databases": Entry("CheckDatabases", "proof", "integrity", vfs=True),
    "write_archive": Entry("WriteArchive", "backup", "archive_write", writes=True),
    "inspect_archive": Entry("InspectArchive", "archive", "archive_read"),
    "stage_archive": Entry("StageArchive", "archive", "archive_read"),
    "install_archive": Entry("InstallArchive", "archive", "archive_install", ends=True),
    "remove_replaced": Entry("RemoveReplaced", "archive", "replaced", ends=True),
    "count_rows": Entry("CountRows", "restore", "count"),
    "read_activity": Entry("ReadActivity", "activity", "activity"),
    "stage_database": Entry("StageDatabase", "restore", "stage", clones=True),
    "checkpoint_databases": Entry("CheckpointDatabases", "restore", "checkpoint"),
    "clone_database": Entry("CloneDatabase", "restore", "clone", writes=True, clones=True),
    "swap_databases": Entry("SwapDatabases", "restore", "swap", ends=True),
    "put_aside": Entry("PutAside", "restore", "put_aside"),
    "recover_swap": Entry("RecoverSwap", "restore", "swap_recovery", ends=True),
    "list_legacy": Entry("ListLegacy", "legacy", "legacy"),
    "copy_legacy": Entry("CopyLegacy", "legacy", "legacy", writes=True, vfs=True),
    "remove_legacy": Entry("RemoveLegacy", "legacy", "legacy"),
}
_NAMES = {entry.request: name for name, entry in OPERATIONS.items()}


@dataclass(frozen=True)
class Job:
    """What every worker needs to know.

    That is who it becomes, which descriptors it has, and how much it may take.
    """

    home: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    become: bool  # change to the user; False where the parent is that user already
    parent: int  # pid
    seconds: float  # for the whole of it
    wal_budget: int  # bytes
    state_folder: str = STATE_FOLDER  # of the databases, beneath `home`
    room: int = 1 << 62  # bytes that the copies may take of the store's disk
    server_pid: int = 0  # of the account's server, as systemd knows it
    file: int = -1  # the new snapshot, open for writing, or what is to be read; -1: there is none
    # O_PATH descriptor of a folder with snapshots of earlier days; -1: there is none
    folder: int = -1
    # what is to be read, where there may be more than one: descriptors of the parent's
    files: tuple[int, ...] = ()


def name_of(operation: Operation[Any]) -> str:
    """Return the name that the operation has in the table."""
    return _NAMES[type(operation).__name__]


def request_type(name: str) -> type[Operation[Any]]:
    """Return the dataclass of an operation. Raises ValueError for another name."""
    entry = OPERATIONS.get(name)
    if entry is None:
        raise ValueError(f"there is no operation {name!r}")
    found: type[Operation[Any]] = getattr(import_module(f"{__name__}.{entry.group}"), entry.request)
    return found


def encode_request(job: Job, operation: Operation[Any]) -> bytes:
    """Make the line that asks a worker of that operation."""
    request = asdict(operation)  # type: ignore[call-overload]  # each operation is a dataclass
    return json.dumps({"job": asdict(job), "request": request}).encode() + b"\n"


def decode_request(name: str, line: bytes) -> tuple[Job, Operation[Any]]:
    """Return the job and the operation of a line that asks a worker of the operation `name`.

    Raises ValueError.
    """
    value = parse_object(line)
    if value.keys() != {"job", "request"}:
        raise ValueError("not a request")
    return decode_record(Job, value["job"]), decode_record(request_type(name), value["request"])
