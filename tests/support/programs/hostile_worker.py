"""Stand in for the worker of a run: as the real one for an honest account, hostile for another.

Usage: UID NOTE BEHAVIOUR PACKAGE OPERATION. For the account of UID it behaves as `BEHAVIOURS` has
it; a child that it leaves behind writes its pid to NOTE. The last two words are a worker's own.
"""

import ctypes
import dataclasses
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

_NOTE, _BEHAVIOUR, _PACKAGE, _OPERATION = sys.argv[2:]
_channel = 0
_request = b""  # the line that it was asked by
_files: list[int] = []  # what it was given to write
_FILE = "state.sqlite"


def _say(**event: object) -> None:
    os.write(_channel, json.dumps(event).encode() + b"\n")


def _find_databases(size: int = 4096) -> None:
    """Say that there is a database, without which no file to write comes, and take the file."""
    said = {"problem": "", "obstacle": "", "inode": 1}
    found = [{"file": _FILE, "bytes": size, "wal_bytes": 0, **said}]
    seen = {"base_dir": "/", "device": "", "opened": None}
    _say(event="source", bytes=size, wal_bytes=0, databases=found, others=[], unlisted=[], **seen)
    with socket.socket(fileno=os.dup(_channel)) as s:
        _files[:] = socket.recv_fds(s, 1, 1)[1]


def _sleep() -> None:
    time.sleep(60)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# ---- the real worker


def _be_honest() -> NoReturn:
    sys.path.insert(0, _PACKAGE)
    sys.argv[1:] = [_OPERATION]
    from t3_backup.worker.child import main as worker  # noqa: PLC0415 - it is found by now

    worker._receive_request = lambda: _request
    sys.exit(worker.main())


def _lie(**changes: Callable[[Any], object]) -> NoReturn:
    """Make the real copy, but count other things in it than are there."""
    sys.path.insert(0, _PACKAGE)
    from t3_backup.errors import Failure  # noqa: PLC0415
    from t3_backup.worker.child.task import Task  # noqa: PLC0415
    from t3_backup.worker.operations.proof import ProofOf, ProvenAll  # noqa: PLC0415
    from t3_backup.worker.protocol import Event  # noqa: PLC0415

    report = Task.report

    def lie_of(proof: ProofOf) -> ProofOf:
        proven = proof.proven
        assert proven is not None
        lies: dict[str, Any] = {key: lie(proven.census) for key, lie in changes.items()}
        census = dataclasses.replace(proven.census, **lies)
        return dataclasses.replace(proof, proven=dataclasses.replace(proven, census=census))

    def reported(task: Task, event: Event | Failure) -> None:
        if isinstance(event, ProvenAll):
            event = dataclasses.replace(event, proofs=tuple(map(lie_of, event.proofs)))
        report(task, event)

    Task.report = reported  # type: ignore[method-assign, assignment]
    _be_honest()


def _answer_and_then(what: Callable[[], object], answer: str = "CopiedAll") -> NoReturn:
    """Do the real work until it has reported that answer, and no more of what is to be done."""
    sys.path.insert(0, _PACKAGE)
    from t3_backup.errors import Failure  # noqa: PLC0415
    from t3_backup.worker.child.task import Task  # noqa: PLC0415
    from t3_backup.worker.protocol import Event  # noqa: PLC0415

    report = Task.report

    def reported(task: Task, event: Event | Failure) -> None:
        report(task, event)
        if type(event).__name__ == answer:
            what()

    Task.report = reported  # type: ignore[method-assign, assignment]
    _be_honest()


# ---- a child that outlives it


def _leave_child_behind(*closed: int, takes: socket.socket | None = None) -> None:
    """Fork a child that holds all but `closed`, and what it `takes`, until the test lets it go."""
    if os.fork() == 0:
        for fd in closed:
            os.close(fd)
        with open(f"{_NOTE}.new", "w") as note:
            note.write(str(os.getpid()))
        os.rename(f"{_NOTE}.new", _NOTE)
        signal.alarm(60)
        if takes is not None:
            socket.recv_fds(takes, 1, 1)
            takes.send(b"\n")
        _sleep()
        os._exit(0)
    while not os.path.exists(_NOTE):
        time.sleep(0.01)


def _leave_child_behind_and_fill_the_disk() -> None:
    _find_databases()
    _leave_child_behind()
    _write_without_end()


def _leave_child_with_the_file_behind_and_be_honest() -> None:
    """The child gets the file once it has come: by then nobody can fork any more."""
    sys.path.insert(0, _PACKAGE)
    from t3_backup.worker.child.task import Task  # noqa: PLC0415

    receive = Task.receive_files
    ours, theirs = socket.socketpair()
    _leave_child_behind(ours.fileno(), takes=theirs)

    def received(task: Task) -> None:
        receive(task)
        socket.send_fds(ours, [b"\n"], list(task.files.values()))
        assert ours.recv(1) == b"\n"  # it has them

    Task.receive_files = received  # type: ignore[assignment, method-assign]
    _be_honest()


def _leave_child_with_the_socket_behind_and_be_honest() -> None:
    _leave_child_behind(*_files)
    _be_honest()


def _leave_child_that_talks_behind() -> None:
    if os.fork() == 0:
        for fd in _files:
            os.close(fd)
        with open(_NOTE, "w") as note:
            note.write(str(os.getpid()))
        signal.alarm(60)
        _flood(b"noise\n" * 10000)
    os._exit(0)


def _be_deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(_NOTE, "w"):
        pass
    _sleep()


# ---- the disk


def _write_without_end() -> NoReturn:
    while True:
        os.write(_files[0], b"x" * (1 << 20))


def _fill_the_disk() -> None:
    _find_databases()
    _write_without_end()


def _fill_the_far_end() -> None:
    _find_databases()
    os.pwrite(_files[0], b"x", 1 << 40)
    _sleep()


def _allocate_past_the_end() -> None:
    _find_databases()
    size = ctypes.c_long(256 << 20)
    ctypes.CDLL(None).fallocate(_files[0], 1, ctypes.c_long(0), size)
    _sleep()


# ---- the socket


def _flood(data: bytes) -> NoReturn:
    while True:
        os.write(_channel, data)


def _close_the_socket() -> None:
    for fd in (_channel, 1, 2):
        os.close(fd)
    _sleep()


def _pass_descriptors_on() -> None:
    _find_databases()
    with socket.socket(fileno=os.dup(_channel)) as s:
        for _ in range(100):
            socket.send_fds(s, [b"noise\n"], _files * 100)
    _sleep()


def _say_and_sleep(**event: object) -> None:
    _say(**event)
    _sleep()


def _tell_of_the_home(growth: int, free: int) -> None:
    _find_databases()
    _say_and_sleep(event="homestate", wal_growth=growth, free=free, total=1 << 40)


# ---- answers


def _claim_a_copy() -> None:
    numbers = {"source_bytes": 1, "wal_growth_bytes": 0, "restarts": 0, "seconds": 0.0}
    moments = {"pinned": None, "before": None, "after": None, "moment": ""}
    copied = {"method": "online", **numbers, **moments}
    _find_databases()
    answer = {"databases": [{"file": _FILE, "copied": copied, "reason": ""}], "live": _FILE}
    _say(event="copiedall", **answer, pin_seconds=0.0, beside=None)


def _claim_a_proof() -> None:
    census = {
        "page_size": 4096,
        "page_count": 1,
        "user_version": 0,
        "application_id": 0,
        "schema_sha256": "",
        "t3_level": 30,
        "ends": {"t": 1},
        "rows": {},
        "content": None,
        "ledger": None,
        "logins": None,
    }
    proven = {"problems": [], "unjudged": "", "orphans": "", "census": census, "seconds": 0.0}
    proven["sqlite_version"] = "3"
    _say(event="provenall", proofs=[{"proven": proven, "reason": ""}])


def _claim_a_copy_and_prove_honestly() -> None:
    if _OPERATION == "check_databases":
        _be_honest()
    _claim_a_copy()


def _claim_a_copy_and_a_proof() -> None:
    (_claim_a_proof if _OPERATION == "check_databases" else _claim_a_copy)()


def _claim_an_error() -> None:
    _say(event="failed", error="LockHeld", reason="no")
    sys.exit(1)


def _claim_to_be_cancelled() -> None:
    _say(event="failed", error="Cancelled", reason="stopped")
    sys.exit(1)


BEHAVIOURS: dict[str, Callable[[], object]] = {
    "fills the disk": _fill_the_disk,
    "fills the disk at the far end": _fill_the_far_end,
    "allocates blocks past the end": _allocate_past_the_end,
    "claims a source larger than the disk": lambda: _find_databases(1 << 61),
    "claims a source that cannot be": lambda: _find_databases(1 << 62),
    "floods with noise": lambda: _flood(b"garbage\n" * 8000),
    "floods with empty lines": lambda: _flood(b"\n" * 60000),
    "floods with progress": lambda: _flood(
        b'{"event": "progress", "written": 1, "read": 1}\n' * 1000
    ),
    "sends a line without an end": lambda: _flood(b"x" * 65536),
    "sends a line without an end, a byte at a time": lambda: _flood(b"x"),
    "sends what is no event": lambda: _say_and_sleep(event="sudo"),
    "sends markup for the terminal": lambda: _say_and_sleep(
        event="phase", phase="[/x]\x1b[2J", total=1
    ),
    "closes the socket and sleeps": _close_the_socket,
    "says nothing": _sleep,
    "stops itself": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "ends without a result": lambda: sys.exit(0),
    "dies talking to the terminal": lambda: sys.exit("\x1b]0;owned\x07"),
    "dies by a signal without a name": lambda: os.kill(os.getpid(), 40),
    "claims an error of the command's own": _claim_an_error,
    "claims to be cancelled": _claim_to_be_cancelled,
    "claims a copy that it never made": _claim_a_copy_and_prove_honestly,
    "claims a copy and a proof of it": _claim_a_copy_and_a_proof,
    "gives another answer than it was asked for": _claim_a_proof,
    "counts other rows than were there": lambda: _lie(
        ends=lambda census: census.ends | {"orchestration_events": 9}
    ),
    "counts one page too many": lambda: _lie(page_count=lambda census: census.page_count + 1),
    "counts pages of half the size": lambda: _lie(page_size=lambda census: census.page_size // 2),
    "counts more pages than can be printed": lambda: _lie(
        page_count=lambda _: 10**4000, page_size=lambda _: 10**4000
    ),
    "passes on many descriptors": _pass_descriptors_on,
    "tells of a -wal that grows and grows": lambda: _tell_of_the_home(1 << 40, 1 << 40),
    "tells of a home that is nearly full": lambda: _tell_of_the_home(1, 0),
    # and in tests of their own
    "answers and does not end": lambda: _answer_and_then(_sleep),
    "answers and dies": lambda: _answer_and_then(_die),
    "proves one and does not end": lambda: _answer_and_then(_sleep, "ProvenAll"),
    "proves one and dies": lambda: _answer_and_then(_die, "ProvenAll"),
    "is deaf to SIGTERM": _be_deaf,
    "fills the disk and leaves a child with its file": _leave_child_behind_and_fill_the_disk,
    "is honest and leaves a child with its file": _leave_child_with_the_file_behind_and_be_honest,
    "is honest and leaves a child with its socket": (
        _leave_child_with_the_socket_behind_and_be_honest
    ),
    "leaves a child that goes on talking": _leave_child_that_talks_behind,
}


def main() -> None:
    """Be asked, as a worker is, and end where nobody asks."""
    global _request  # noqa: PLW0603 - it is all that the behaviours know
    with os.fdopen(os.dup(_channel), "rb") as lines:
        _request = lines.readline()
    if not _request:
        sys.exit(0)
    if json.loads(_request)["job"]["uid"] != int(sys.argv[1]):
        _be_honest()
    BEHAVIOURS[_BEHAVIOUR]()


if __name__ == "__main__":
    main()
