"""Hold the three standard streams, however a program was started and whoever reads them.

One that is closed at the start leads to nowhere: else the next descriptor of ours would take its
place, and whoever prints would write into a database. One that can't be written to any more is
remembered: the exit code says so, and costs nobody their backup.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # by descriptor
_lost: list[OSError] = []


def open_closed() -> None:
    """Open /dev/null in the place of each standard stream that is closed; nothing is lost yet.

    To be called before anything is opened: a new descriptor is the lowest that is free. What is
    unbuffered is buffered from then on: it would drop what a full disk takes no more of.
    """
    forget_lost()
    for fd, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))
        elif mode == "w" and isinstance(getattr(stream, "buffer", None), io.RawIOBase):
            setattr(sys, name, _buffer(stream))


def _buffer(stream: TextIO) -> TextIO:
    """Return a stream that writes all, or raises OSError.

    Python's own, where it was told not to buffer (PYTHONUNBUFFERED), passes over a short write(2).
    """
    fd, encoding, errors = stream.fileno(), stream.encoding, stream.errors
    return open(fd, "w", buffering=1, encoding=encoding, errors=errors, closefd=False)


def write_out(text: str) -> None:
    """Write on standard output, at once. Raises OSError where nobody takes it."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        give_up(sys.stdout, error)
        raise


def write_error(text: str) -> None:
    """Write on standard error, at once, if anybody takes it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError as error:
        give_up(sys.stderr, error)


def give_up(stream: TextIO, error: OSError) -> None:
    """Send what else comes to nowhere, so that the exit does not fail, and remember why."""
    _lost.append(error)
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def forget_lost() -> None:
    """Take what is lost as told of."""
    _lost.clear()


def find_lost() -> OSError | None:
    """Return why something that was to be told was not; None where all was."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            give_up(stream, error)
    return _lost[0] if _lost else None
