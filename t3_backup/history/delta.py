"""The format of a delta: the pages of one image that differ from those of another, its base.

The pages are packed with the base's same pages as the dictionary.

Old pages are nearly all found again in the newer ones, whether in place or, after a page was split,
in a neighbour: so many pages at once share one dictionary. Without a base it is the whole image,
packed. Both images count as followed by zeros without end, and every page where they then differ is
in it, so that sizes may shrink and grow along a chain. docs/format.md has the format, and a reader
that needs nothing of this.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import zstandard

from t3_backup.history import checksummed_file

FORMAT = 1
# of pages that are packed at once: what twice this and zstd's tables take is all the memory there
# is to it
GROUP_BYTES = 4 << 20
_GROUP = struct.Struct("<III")  # pages, bytes of their packed numbers, bytes of the frame
_NUMBER = struct.Struct("<I")
_MOST_PAGE = 65536


@dataclass(frozen=True)
class Header:
    """The header of a delta. Sizes in bytes."""

    format: int
    page_size: int
    bytes: int  # of the image
    sha256: str  # of the image
    base_bytes: int  # 0 without a base
    base_sha256: str | None


# the pages of these numbers, one after the other, zeros past an image's end
ReadPages = Callable[[Sequence[int]], bytes]


def write_delta(
    fd: int,
    header: Header,
    pages: Iterable[int],
    image: ReadPages,
    base: ReadPages,
    check: Callable[[], None],
) -> int:
    """Write a delta with those of `pages`, ascending, that differ.

    Returns its size in bytes. `check` is called before each group. Raises OSError, and what `check`
    raises.
    """
    file = checksummed_file.ChecksummedWriter(fd, asdict(header))
    for group in _groups(pages, GROUP_BYTES // header.page_size):
        check()
        old, new = image(group), base(group)
        changed = [
            (number, at)
            for number, at in zip(group, range(0, len(old), header.page_size), strict=True)
            if old[at : at + header.page_size] != new[at : at + header.page_size]
        ]
        if not changed:
            continue
        if len(changed) < len(group):
            old, new = (
                b"".join(data[at : at + header.page_size] for _, at in changed)
                for data in (old, new)
            )
        frame = _pack(old, new if header.base_sha256 else b"")
        numbers = _pack_numbers([number for number, _ in changed])
        file.write(_GROUP.pack(len(changed), len(numbers), len(frame)) + numbers + frame)
    file.finish()
    return file.bytes


def _groups(pages: Iterable[int], most: int) -> Iterator[list[int]]:
    group = []
    for page in pages:
        group.append(page)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def _pack(data: bytes, base: bytes) -> bytes:
    """A frame of `data`, with `base` as its dictionary.

    Long matches are what there is to find, in a window over both. The higher levels' search for
    short ones takes three times as long, and finds less: 1 GB, a day of 1 %, 16,062 pages: 3.1 MB
    in 0.9 s; level 12, 3.1 MB in 3.5 s; a page a frame, 6.0 MB.
    """
    window = max(10, (len(data) + len(base) - 1).bit_length())
    parameters = zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_LAZY,
        window_log=window,
        hash_log=min(21, window),
        chain_log=min(21, window),
        search_log=4,
        min_match=6,
        target_length=64,
    )
    return zstandard.ZstdCompressor(
        dict_data=_dictionary(base), compression_params=parameters
    ).compress(data)


def _unpack(frame: bytes, base: bytes, size: int) -> bytes:
    """The inverse of `_pack`. Raises ValueError."""
    try:
        data = zstandard.ZstdDecompressor(
            dict_data=_dictionary(base), max_window_size=1 << 27
        ).decompress(frame, size)
    except zstandard.ZstdError as error:
        raise ValueError(f"a frame of it can't be unpacked: {error}") from None
    if len(data) != size:
        raise ValueError("a frame of it has another size")
    return data


def _dictionary(base: bytes) -> zstandard.ZstdCompressionDict | None:
    return (
        zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        if base
        else None
    )


def _pack_numbers(numbers: Sequence[int]) -> bytes:
    steps = (number - before for before, number in zip([0, *numbers], numbers, strict=False))
    return zstandard.ZstdCompressor().compress(b"".join(map(_NUMBER.pack, steps)))


def read_header(fd: int) -> Header:
    """Read the header of the delta in an open file; the rest is not read.

    Raises ValueError and OSError.
    """
    return _parse_header(checksummed_file.read_header(fd)[0])


def _parse_header(value: dict[str, Any]) -> Header:
    try:
        header = Header(**value)
    except TypeError:
        raise ValueError("it is no delta") from None
    whole = (header.page_size, header.bytes, header.base_bytes)
    texts = (header.sha256, header.base_sha256 or "")
    if (
        header.format != FORMAT
        or not all(type(n) is int for n in whole)
        or not all(type(text) is str for text in texts)
    ):
        raise ValueError(f"not a delta of format {FORMAT}")
    if not 0 < header.page_size <= _MOST_PAGE or min(whole) < 0:
        raise ValueError("a size of it can't be")
    return header


class Delta:
    """Read a delta in an open file, which must be whole."""

    def __init__(self, fd: int) -> None:
        """Read all of it. Raises ValueError where it is not what was written, and OSError."""
        self._fd = fd
        self._body = checksummed_file.read_whole(fd)
        self.header = _parse_header(self._body.header)

    def groups(self) -> Iterator[tuple[list[int], bytes]]:
        """Iterate over the groups: the numbers of the pages of each, and its frame.

        Raises ValueError and OSError.
        """
        offset = self._body.start
        while offset < self._body.end:
            count, number_bytes, frame_bytes = _GROUP.unpack(
                os.pread(self._fd, _GROUP.size, offset)
            )
            offset += _GROUP.size
            yield (
                self._numbers(count, offset, number_bytes),
                os.pread(self._fd, frame_bytes, offset + number_bytes),
            )
            offset += number_bytes + frame_bytes

    def pages(self) -> Iterator[int]:
        """Iterate over the numbers of all pages in it, ascending.

        Raises ValueError and OSError.
        """
        for numbers, _ in self.groups():
            yield from numbers

    def unpack_group(self, numbers: Sequence[int], frame: bytes, base: ReadPages) -> bytes:
        """Unpack the pages of a group. Raises ValueError."""
        dictionary = base(numbers) if self.header.base_sha256 else b""
        return _unpack(frame, dictionary, len(numbers) * self.header.page_size)

    def _numbers(self, count: int, offset: int, size: int) -> list[int]:
        steps = struct.unpack(
            f"<{count}I", _unpack(os.pread(self._fd, size, offset), b"", count * _NUMBER.size)
        )
        numbers, last = [], 0
        for step in steps:
            last += step
            numbers.append(last)
        return numbers
