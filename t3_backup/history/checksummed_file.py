"""Write and read a file with a checksum.

It is a line of JSON, a body, and the SHA-256 of all that is before it. Deltas and page hashes are
kept so (docs/format.md).
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


class ChecksummedWriter:
    """Write such a file, at the end of an open one."""

    def __init__(self, fd: int, header: Mapping[str, Any]) -> None:
        self._fd = fd
        self._digest = hashlib.sha256()
        self.bytes = 0  # written so far
        self.write(json.dumps(header, sort_keys=True).encode() + b"\n")

    def write(self, data: bytes) -> None:
        """Add `data` to the body. Raises OSError."""
        self._digest.update(data)
        self._write_raw(data)

    def finish(self) -> None:
        """Write the checksum. Raises OSError."""
        self._write_raw(self._digest.digest())

    def _write_raw(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self.bytes += written
            view = view[written:]


@dataclass(frozen=True)
class CheckedBody:
    """The header of a file that is whole, and from where to where its body is."""

    header: dict[str, Any]
    start: int
    end: int


def read_whole(fd: int) -> CheckedBody:
    """Read the open file `fd` to its end.

    Raises ValueError where it is not what was written, and OSError.
    """
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
    header, start = read_header(fd)
    return CheckedBody(header, start, end)


def read_header(fd: int) -> tuple[dict[str, Any], int]:
    """Read the header, and tell where the body begins; the checksum is not checked.

    Raises ValueError and OSError.
    """
    line, newline, _ = os.pread(fd, _MOST_HEADER, 0).partition(b"\n")
    header = json.loads(line) if newline else None
    if not isinstance(header, dict):
        raise ValueError("it has no header")  # noqa: TRY004 - of a file's text
    return header, len(line) + 1
