"""A file that tells by itself whether it is whole: a line of JSON, a body, and the SHA-256 of all that is before it.

So are deltas and page hashes kept (docs/format.md).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DIGEST_BYTES = 32
_READ_BYTES = 1 << 20
_MOST_HEADER = 4096


class Writer:
    """Writes one at the end of the open file `fd`."""

    def __init__(self, fd: int, header: Mapping[str, Any]) -> None:
        self._fd = fd
        self._digest = hashlib.sha256()
        self.bytes = 0  # written so far
        self.write(json.dumps(header, sort_keys=True).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Add to it. Raises OSError."""
        self._digest.update(data)
        self._put(data)

    def finish(self) -> None:
        """Write what seals it. Raises OSError."""
        self._put(self._digest.digest())

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self.bytes += written
            view = view[written:]


@dataclass(frozen=True)
class Reader:
    """What is in one that is whole: its header, and from where to where the body lies in the file."""

    header: dict[str, Any]
    start: int
    end: int


def check(fd: int) -> Reader:
    """Read the open file `fd` to its end. Raises ValueError where it is not what was written, and OSError."""
    end = os.fstat(fd).st_size - _DIGEST_BYTES
    digest, offset = hashlib.sha256(), 0
    while offset < end:
        data = os.pread(fd, min(_READ_BYTES, end - offset), offset)
        if not data:
            break
        digest.update(data)
        offset += len(data)
    if end < 0 or digest.digest() != os.pread(fd, _DIGEST_BYTES, end):
        raise ValueError("it is not what was written: its SHA-256 is another")
    header, start = peek(fd)
    return Reader(header, start, end)


def peek(fd: int) -> tuple[dict[str, Any], int]:
    """Its header, and where its body begins; whether it is whole is not looked at. Raises ValueError and OSError."""
    line, newline, _ = os.pread(fd, _MOST_HEADER, 0).partition(b"\n")
    header = json.loads(line) if newline else None
    if not isinstance(header, dict):
        raise ValueError("it has no header")  # noqa: TRY004 - of a file's text
    return header, len(line) + 1
