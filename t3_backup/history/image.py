"""Put the image of a snapshot together out of a plain file and deltas.

Nothing that is stored is changed. Two ways: over the plain file, where the pages that take the
place of its own are in a second, sparse file (to read, pack or hash an image without disk space for
it); or in a copy of it, which is then a file like any other (to prove and to restore).
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
    """Bytes that can be read, and turned into those of an older snapshot by its delta."""

    def __init__(
        self, plain: int | None, file: int, page_size: int, check: Callable[[], None] = lambda: None
    ) -> None:
        """Begin with the plain file `plain`, or with nothing.

        `file` is empty, and may be written to. Both are closed with it. `check` is called between
        small steps, and may raise what ends it all.
        """
        self._plain, self._file, self._page_size, self._check = plain, file, page_size, check
        self.bytes = 0 if plain is None else os.fstat(plain).st_size
        self._replaced: set[int] = set()
        self._copied = False  # whether `file` is all of it, and has its size

    def copy_plain(self) -> None:
        """Make the file a copy of the plain one; only before any delta. Raises OSError."""
        self._copied = True
        if self._plain is not None:
            native.copy(self._plain, self._file, self.bytes)

    def read_pages(self, numbers: Sequence[int]) -> bytes:
        """Read the pages of these numbers, one after the other; zeros past its end.

        Raises OSError.
        """
        replaced = (
            b"\1" * len(numbers)
            if self._copied
            else bytes(number in self._replaced for number in numbers)
        )
        plain = -1 if self._plain is None else self._plain
        return bytes(native.read_pages(plain, self._file, replaced, numbers, self._page_size))

    def apply_delta(self, delta: Delta) -> None:
        """Turn this image into the one that `delta` is of, whose base this one is.

        Raises ValueError and OSError.
        """
        header = delta.header
        if header.page_size != self._page_size or (
            header.base_sha256 is not None and header.base_bytes != self.bytes
        ):
            raise ValueError("it is of another base")
        for numbers, frame in delta.groups():
            self._check()
            native.write_pages(
                self._file,
                numbers,
                self._page_size,
                delta.unpack_group(numbers, frame, self.read_pages),
            )
            self._replaced.update(() if self._copied else numbers)
        self.bytes = header.bytes
        if self._copied:
            os.ftruncate(self._file, self.bytes)

    def hash_content(self) -> Content:
        """Return its size and SHA-256. Raises OSError."""
        digest = hashlib.sha256()
        per_read = _READ_BYTES // self._page_size
        for first in range(0, -(-self.bytes // self._page_size), per_read):
            self._check()
            digest.update(self._read_stretch(first, per_read))
        return Content(self.bytes, digest.hexdigest())

    def _read_stretch(self, first: int, count: int) -> bytearray:
        """Read so many pages from `first` on, up to its end."""
        offset = first * self._page_size
        data = bytearray(min(count * self._page_size, self.bytes - offset))
        file = self._file if self._copied else self._plain
        if file is not None:
            _fill(file, memoryview(data), offset)
        replaced = [number for number in range(first, first + count) if number in self._replaced]
        pages = memoryview(self.read_pages(replaced))
        for index, number in enumerate(replaced):
            at = (number - first) * self._page_size
            end = min(at + self._page_size, len(data))
            data[at:end] = pages[index * self._page_size :][: max(0, end - at)]
        return data

    def open_copy(self) -> int:
        """Open the copy that it is, read-only. Raises OSError."""
        return os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files, and give back the disk space that they take."""
        os.close(self._file)
        if self._plain is not None:
            os.close(self._plain)


def _fill(fd: int, buffer: memoryview, offset: int) -> None:
    """Read as much as there is, from `offset` on."""
    done = 0
    while done < len(buffer) and (count := os.preadv(fd, [buffer[done:]], offset + done)):
        done += count
