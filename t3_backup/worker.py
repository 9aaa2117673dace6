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
from pathlib import Path

from t3_backup import confinement, copier, protocol, source
from t3_backup.errors import Cancelled, Failure, explain
from t3_backup.pin import Budget
from t3_backup.proof import prove
from t3_backup.protocol import Copied, Phase, Proven, Request
from t3_backup.snapshot import take
from t3_backup.source import Source

# Address space beside the map of a database: Python, its libraries, and what RLIMIT_DATA allows.
_SELF_BYTES = 1 << 30


def serve(request: Request) -> Copied | Proven | None:
    """Do what is asked, from within the process that is to be confined. None for a look. Raises Failure and OSError."""
    copier.load()
    if request.become:
        confinement.become(request.uid, request.gid, request.groups)
    confinement.confine(request.parent)
    copier.cancel_on_signal(signal.SIGTERM)
    found = None if request.mode == "prove" else _find(request)
    confinement.filter_calls()
    if request.mode == "look":
        return None
    with copier.Destination(request.file, request.channel) as destination:
        if found is not None:
            return _copy(request, found, destination)
        return _prove(request, destination)


def _find(request: Request) -> Source:
    found = source.find(Path(request.home), request.uid)
    told = protocol.Source(found.size, found.wal_bytes())
    # The last thing that ever leaves this process by SCM_RIGHTS: an O_PATH descriptor, good for stat alone.
    with socket.socket(fileno=os.dup(request.channel)) as channel:
        socket.send_fds(channel, [protocol.encode(told)], [found.folder])
    most = protocol.copy_limit(told.bytes + told.wal_bytes)
    confinement.lower_limit(resource.RLIMIT_FSIZE, most)
    confinement.lower_limit(resource.RLIMIT_AS, _SELF_BYTES + most)
    return found


def _copy(request: Request, found: Source, destination: copier.Destination) -> Copied:
    alive = protocol.Progress(0, 0)
    budget = Budget(found, request.seconds, request.wal_budget, waiting=lambda: _tell(request, alive))
    _tell(request, Phase("copy", found.size))
    return take(found, destination, budget, method=request.method, mmap=request.mmap)


def _prove(request: Request, destination: copier.Destination) -> Proven:
    size = os.fstat(request.file).st_size
    confinement.lower_limit(resource.RLIMIT_AS, _SELF_BYTES + size)
    _tell(request, Phase("prove", size))
    return prove(destination, share=request.share, shares=request.shares, mmap=request.mmap)


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
