"""The image of a snapshot, put together out of a plain file and deltas. Nothing of what is stored is touched by it.

Two ways: beside the plain file, where the pages that take the place of its own are in a second, sparse file (to read, pack or
hash an image without room for it); or in a copy of it, which is then a file like any other (to prove and to restore).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Self

from t3_backup.history.delta import Delta
from t3_backup.store.content import Content
from t3_backup.system import native

_READ_BYTES = 4 << 20


class Image:
    """Bytes that can be read, and become those of an older snapshot by its delta."""

    def __init__(self, plain: int | None, file: int, page_size: int, check: Callable[[], None] = lambda: None) -> None:
        """Of the plain file `plain`, or of nothing; `file` is empty, and may be written to. Both are closed with it.

        `check` is called between small steps, and may raise what ends it all.
        """
        self._plain, self._file, self._page_size, self._check = plain, file, page_size, check
        self.bytes = 0 if plain is None else os.fstat(plain).st_size
        self._replaced: set[int] = set()
        self._copied = False  # whether `file` is all of it, and has its size

    def copy(self) -> None:
        """Make the file a copy of the plain one; only at first. Raises OSError."""
        self._copied = True
        if self._plain is not None:
            native.copy(self._plain, self._file, self.bytes)

    def read(self, numbers: Sequence[int]) -> bytes:
        """The pages of these numbers, one after the other; zeros past its end. Raises OSError."""
        replaced = b"\1" * len(numbers) if self._copied else bytes(number in self._replaced for number in numbers)
        plain = -1 if self._plain is None else self._plain
        return bytes(native.read_pages(plain, self._file, replaced, numbers, self._page_size))

    def apply(self, delta: Delta) -> None:
        """Become the image that `delta` is of, whose base this one is. Raises ValueError and OSError."""
        header = delta.header
        if header.page_size != self._page_size or (header.base_sha256 is not None and header.base_bytes != self.bytes):
            raise ValueError("it is of another base")
        for numbers, frame in delta.groups():
            self._check()
            native.write_pages(self._file, numbers, self._page_size, delta.unpack(numbers, frame, self.read))
            self._replaced.update(() if self._copied else numbers)
        self.bytes = header.bytes
        if self._copied:
            os.ftruncate(self._file, self.bytes)

    def hash(self) -> Content:
        """Size and SHA-256 of it. Raises OSError."""
        digest = hashlib.sha256()
        per_read = _READ_BYTES // self._page_size
        for first in range(0, -(-self.bytes // self._page_size), per_read):
            self._check()
            digest.update(self._stretch(first, per_read))
        return Content(self.bytes, digest.hexdigest())

    def _stretch(self, first: int, count: int) -> bytearray:
        """So many pages from `first` on, up to its end."""
        offset = first * self._page_size
        data = bytearray(min(count * self._page_size, self.bytes - offset))
        file = self._file if self._copied else self._plain
        if file is not None:
            _fill(file, memoryview(data), offset)
        replaced = [number for number in range(first, first + count) if number in self._replaced]
        pages = memoryview(self.read(replaced))
        for place, number in enumerate(replaced):
            at = (number - first) * self._page_size
            end = min(at + self._page_size, len(data))
            data[at:end] = pages[place * self._page_size :][: max(0, end - at)]
        return data

    def open(self) -> int:
        """A read-only descriptor of the copy that it is. Raises OSError."""
        return os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what it takes."""
        os.close(self._file)
        if self._plain is not None:
            os.close(self._plain)


def _fill(fd: int, buffer: memoryview, offset: int) -> None:
    """Read as much as there is, from `offset` on."""
    done = 0
    while done < len(buffer) and (count := os.preadv(fd, [buffer[done:]], offset + done)):
        done += count
