"""The process that touches the user's bytes: become the user, serve one operation, report.

It is exec'd by `worker.client`. What the operation needs is imported, and the VFS registered,
before the change of user; the filter of system calls comes before SQLite reads the first byte.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from dataclasses import replace
from importlib import import_module
from typing import Any

from t3_backup.errors import Cancelled, Failure, explain
from t3_backup.system import native
from t3_backup.worker.child import sandbox
from t3_backup.worker.child.task import Task
from t3_backup.worker.operations import OPERATIONS, Operation, decode_request
from t3_backup.worker.protocol import Event

_PACKAGE = "t3_backup.worker.child"
_PIECE_BYTES = 1 << 16


def serve_operation(name: str, task: Task, operation: Operation[Any]) -> Event | None:
    """Serve one operation, from within the process that is to be confined.

    Returns None where the database that was found is all that was asked for, or where a child that
    waits is never asked. Raises Failure and OSError.
    """
    entry = OPERATIONS[name]
    serve = getattr(import_module(f"{_PACKAGE}.{entry.child}"), f"serve_{name}")
    locate = import_module(f"{_PACKAGE}.locate") if entry.locates else None
    if entry.vfs:
        import_module(f"{_PACKAGE}.vfs").register_vfs()
    if entry.pins:
        task.watch = import_module(f"{_PACKAGE}.home_watch").HomeWatch(task.report)
    gc.freeze()  # what was imported stays to the end: no collection need look at it
    gc.enable()
    if task.job.waits:
        if (text := _receive_request(task.job.channel)) is None:
            return None
        _, task.job, operation = decode_request(text)
        # Whether this is the parent still is looked at below, before a byte is read of it.
        folder = f"/proc/{task.job.parent}/fd"
        theirs = (f"{folder}/{fd}" for fd in task.job.files)
        files = tuple(os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in theirs)
        task.job = replace(task.job, files=files)
    if task.job.become:
        sandbox.become_user(task.job.uid, task.job.gid, task.job.groups)
    sandbox.confine_process(task.job.parent)
    native.cancel_on_signal(signal.SIGTERM)
    if locate is not None:
        task.sources = locate.find_and_report(task)
        if name == "copy_databases":
            task.receive_files()
    sandbox.filter_calls(clones=entry.clones)
    answer: Event | None = serve(task, operation)
    return answer


def _receive_request(channel: int) -> str | None:
    """Wait for the line with the request; None where the parent is gone, or has no use for it."""
    text = b""
    while not text.endswith(b"\n"):
        if not (piece := os.read(channel, _PIECE_BYTES)):
            return None
        text += piece
    return text.decode()


def main() -> int:
    """Serve the one request on the command line."""
    name, job, operation = decode_request(sys.argv[1])
    task = Task(job)
    try:
        answer = serve_operation(name, task, operation)
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
