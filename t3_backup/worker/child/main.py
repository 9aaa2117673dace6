"""The process that touches the user's bytes: become the user, serve one operation, report.

It is exec'd by `worker.client`. What the operation needs is imported, and the VFS registered; then
it reads its request and changes to the user. The filter of system calls comes before SQLite reads
the first byte.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

from t3_backup.errors import Cancelled, Failure, explain
from t3_backup.system import native
from t3_backup.worker.child import sandbox
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations import OPERATIONS, Operation, decode_request, request_type
from t3_backup.worker.protocol import CHANNEL, Event

Serve = Callable[[Task, Operation[Any]], Event | None]
_PACKAGE = "t3_backup.worker.child"
_PIECE_BYTES = 1 << 16


def prepare_operation(name: str) -> Serve:
    """Import all that the operation needs, while this is no user's process yet, and return it.

    Raises ValueError for a name that is not in the table.
    """
    request_type(name)
    entry = OPERATIONS[name]
    serve: Serve = getattr(import_module(f"{_PACKAGE}.{entry.child}"), f"serve_{name}")
    if entry.locates:
        import_module(f"{_PACKAGE}.locate")
    if entry.vfs:
        import_module(f"{_PACKAGE}.vfs").register_vfs()
    if entry.pins:
        import_module(f"{_PACKAGE}.home_watch")
    if name == "copy_databases":
        import_module("socket")  # by which it receives its files
    gc.freeze()  # what was imported stays to the end: no collection need look at it
    gc.enable()
    return serve


def serve_operation(name: str, serve: Serve, task: Task, operation: Operation[Any]) -> Event | None:
    """Serve one operation, from within the process that is to be confined.

    Returns None where the databases that were found are all that was asked for. Raises Failure and
    OSError.
    """
    job, entry = task.job, OPERATIONS[name]
    if entry.pins:
        task.watch = import_module(f"{_PACKAGE}.home_watch").HomeWatch(task.report)
    # Whether this is the parent still is looked at below, before a byte is read of it.
    theirs = (f"/proc/{job.parent}/fd/{fd}" for fd in job.files)
    task.job = replace(
        job, files=tuple(os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in theirs)
    )
    if job.become:
        sandbox.become_user(job.uid, job.gid, job.groups)
    sandbox.confine_process(job.parent)
    native.cancel_on_signal(signal.SIGTERM)
    if entry.locates:
        task.sources = import_module(f"{_PACKAGE}.locate").find_and_report(task)
        if name == "copy_databases":
            task.receive_files()
    sandbox.filter_calls(clones=entry.clones)
    return serve(task, operation)


def _receive_request() -> bytes:
    """Wait for the line with the request; empty where the parent is gone, or has no use for it."""
    line = b""
    while not line.endswith(b"\n"):
        if not (piece := os.read(CHANNEL, _PIECE_BYTES)):
            return b""
        line += piece
    return line


def main() -> int:
    """Serve one request, of the operation on the command line; or none, where none comes."""
    name = sys.argv[1]
    serve = prepare_operation(name)
    if not (line := _receive_request()):
        return 0
    job, operation = decode_request(name, line)
    task = Task(job)
    try:
        answer = serve_operation(name, serve, task, operation)
        if answer is not None:
            task.report(answer)
        return 0
    except Failure as failure:
        task.report(failure)
    except OSError as error:
        task.report(
            Cancelled("stopped") if error.errno == errno.ECANCELED else Failure(explain(error))
        )
    return 1
