"""The process that touches the user's bytes: exec'd by `owner`, becomes the user, does one thing, says what came of it.

Everything that is needed is imported, and the VFS registered, before the change of user; the filter of system calls
comes before SQLite reads the first byte. Its answers go to the parent's socket, a JSON object a line.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

from t3_backup.errors import Cancelled, Failure, SourceError, explain
from t3_backup.t3 import databases
from t3_backup.t3.files import STATE_DATABASE
from t3_backup.worker import protocol
from t3_backup.worker.child import archive_install, legacy, sandbox, source, swap
from t3_backup.worker.child.archive_read import inspect_archive
from t3_backup.worker.child.archive_write import write_archive
from t3_backup.worker.child.checkpoint import checkpoint
from t3_backup.worker.child.copy import copy_database
from t3_backup.worker.child.integrity import check_integrity
from t3_backup.worker.child.live_files import LiveFiles
from t3_backup.worker.child.pinned_read import Budget, count_live
from t3_backup.worker.child.source import Source
from t3_backup.worker.child.vfs import Destination, cancel_on_signal, register_vfs
from t3_backup.worker.protocol import (
    Copied,
    Counted,
    Folded,
    Healed,
    Inspected,
    Named,
    Packed,
    Phase,
    Proven,
    Request,
    Staged,
    Swapped,
)

# Address space beside the map of a database: Python, its libraries, and what RLIMIT_DATA allows.
_SELF_BYTES = 1 << 30
_PAUSE_S = 0.5  # between two signs of life


def serve(request: Request) -> protocol.Event | None:
    """Do what is asked, from within the process that is to be confined. None for a look. Raises Failure and OSError."""
    register_vfs()
    if request.become:
        sandbox.become(request.uid, request.gid, request.groups)
    sandbox.confine(request.parent)
    cancel_on_signal(signal.SIGTERM)
    found = _find(request) if request.mode in ("look", "copy") else None
    sandbox.filter_calls(clones=request.mode in ("stage", "clone"))
    if request.mode == "look":
        return None
    if request.mode in ("count", "stage", "fold", "clone", "exchange", "heal"):
        return _restore(request)
    if request.mode in ("pack", "inspect", "unpack", "swap"):
        return _files(request)
    if request.mode == "survey":
        return Named(legacy.survey(request.folder, request.uid, request.name))
    if request.mode == "discard":
        legacy.discard(request.folder, request.name, request.uid, request.since)
        return Named((request.name,))
    with Destination(request.file, request.channel) as destination:
        if found is not None:
            return _copy(request, found, destination)
        if request.mode == "fetch":
            return _fetch(request, destination)
        return _prove(request, destination)


def _find(request: Request) -> Source:
    home = Path(request.home)
    folder = source.find_folder(home)
    others = _others(folder, home)
    try:
        found = source.find_in(folder, home, request.uid)
    except SourceError:
        if others:
            _tell(request, protocol.Source(0, 0, others))
        raise
    told = protocol.Source(found.size, found.wal_bytes(), others)
    # The last thing that ever leaves this process by SCM_RIGHTS: an O_PATH descriptor, good for stat alone.
    with socket.socket(fileno=os.dup(request.channel)) as channel:
        socket.send_fds(channel, [protocol.encode(told)], [found.folder])
    most = protocol.copy_limit(told.bytes + told.wal_bytes)
    sandbox.lower_limit(resource.RLIMIT_FSIZE, most)
    sandbox.lower_limit(resource.RLIMIT_AS, _SELF_BYTES + most)
    return found


def _others(folder: int, home: Path) -> tuple[str, ...]:
    try:
        return databases.uncovered(folder)
    except OSError as error:
        where = home / STATE_DATABASE.parent
        raise SourceError(f"{where} can't be listed ({error.strerror}): what is not backed up there, can't be told") from None


def _copy(request: Request, found: Source, destination: Destination) -> Copied:
    alive = protocol.Progress(0, 0)
    budget = Budget(found, request.seconds, request.wal_budget, waiting=lambda: _tell(request, alive))
    _tell(request, Phase("copy", found.size))
    return copy_database(found, destination, budget, method=request.method, mmap=request.mmap)


def _fetch(request: Request, destination: Destination) -> Copied:
    found = legacy.find(request.folder, request.name, request.uid)
    try:
        told = protocol.Source(found.size, 0)
        _tell(request, told)
        most = protocol.copy_limit(told.bytes)
        sandbox.lower_limit(resource.RLIMIT_FSIZE, most)
        sandbox.lower_limit(resource.RLIMIT_AS, _SELF_BYTES + most)
        _tell(request, Phase("copy", found.size))
        return legacy.fetch(found, destination, Budget(found.source, request.seconds, request.wal_budget))
    finally:
        os.close(found.file)


def _restore(request: Request) -> Counted | Staged | Folded | Copied | Healed:
    """The steps of a restore, in the place of the live database."""
    if request.mode == "count":
        return Counted(count_live(source.find(Path(request.home), request.uid)))
    place = LiveFiles.open(Path(request.home), request.uid, create=request.mode == "stage")
    if request.mode == "stage":
        return swap.stage_database(place, request.file, request.aside)
    if request.mode == "fold":
        return checkpoint(place)
    if request.mode == "clone":
        assert request.old is not None
        assert request.taken is not None
        _tell(request, protocol.Source(request.old.bytes, 0))
        sandbox.lower_limit(resource.RLIMIT_FSIZE, protocol.copy_limit(request.old.bytes))
        return swap.clone_database(place, request.old, request.file, request.taken)
    if request.mode == "exchange":
        return swap.swap_databases(place, request.aside, request.old, request.beside)
    seen = request.old, request.staged, request.beside
    return swap.heal_swap(place, request.aside, *seen, begun=request.begun, keep=request.keep)


def _files(request: Request) -> Packed | Inspected | Swapped:
    """What is beside the database."""
    alive = _Alive(request)
    if request.mode == "inspect":
        return inspect_archive(request.file, request.limit, alive)
    place = LiveFiles.open(Path(request.home), request.uid)
    if request.mode == "unpack":
        return archive_install.stage_archive(place, request.file, request.aside, request.limit, alive)
    if request.mode == "swap":
        return archive_install.install_archive(place, request.aside, install=request.install, sealed=request.sealed)

    def told(total: int) -> None:
        _tell(request, protocol.Source(total, 0))
        sandbox.lower_limit(resource.RLIMIT_FSIZE, protocol.copy_limit(total))
        _tell(request, Phase("pack", total))

    return write_archive(place.folder, request.uid, request.file, request.limit, request.known, told, alive)


class _Alive:
    """Says how many bytes are done, now and then: the parent ends a worker that shows no sign of life."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._said = time.monotonic()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self._said > _PAUSE_S:
            self._said = time.monotonic()
            _tell(self._request, protocol.Progress(done, done))


def _prove(request: Request, destination: Destination) -> Proven:
    size = os.fstat(request.file).st_size
    sandbox.lower_limit(resource.RLIMIT_AS, _SELF_BYTES + size)
    _tell(request, Phase("prove", size))
    return check_integrity(destination, share=request.share, shares=request.shares, mmap=request.mmap)


def _tell(request: Request, event: protocol.Event | Failure) -> None:
    data = protocol.encode(event)
    while data:
        data = data[os.write(request.channel, data) :]


def main() -> int:
    """Serve the one request on the command line."""
    request = Request.from_text(sys.argv[1])
    try:
        outcome = serve(request)
        if outcome is not None:
            _tell(request, outcome)
        return 0
    except Failure as failure:
        _tell(request, failure)
    except OSError as error:
        _tell(request, Cancelled("stopped") if error.errno == errno.ECANCELED else Failure(explain(error)))
    return 1
