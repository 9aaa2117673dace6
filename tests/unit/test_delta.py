"""A delta gives back the image that it was made of, and tells when it can't. Real files, no
account folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.account_folders import PAGE, database_image

from t3_backup.history import delta
from t3_backup.history.delta import Delta, Header
from t3_backup.history.image import Image


@contextmanager
def file(data: bytes = b"") -> Iterator[int]:
    with tempfile.TemporaryFile() as opened:
        opened.write(data)
        opened.flush()
        yield opened.fileno()


def pages_of(data: bytes) -> delta.ReadPages:
    def read(numbers: Sequence[int]) -> bytes:
        return b"".join(
            data[number * PAGE : (number + 1) * PAGE].ljust(PAGE, b"\0") for number in numbers
        )

    return read


def write(fd: int, old: bytes, new: bytes | None) -> int:
    """A delta of `old` on `new`, every page looked at."""
    base = (len(new), sha256(new).hexdigest()) if new is not None else (0, None)
    header = Header(delta.FORMAT, PAGE, len(old), sha256(old).hexdigest(), *base)
    pages = range(-(-max(len(old), base[0]) // PAGE))
    return delta.write_delta(fd, header, pages, pages_of(old), pages_of(new or b""), lambda: None)


def read(fd: int, new: bytes | None) -> bytes:
    """What the delta in `fd` gives back on `new`: in a copy, and beside it; both are the same."""
    found = []
    for copied in (False, True):
        with tempfile.TemporaryFile() as plain, tempfile.TemporaryFile() as scratch:
            plain.write(new or b"")
            plain.flush()
            with Image(
                None if new is None else os.dup(plain.fileno()), os.dup(scratch.fileno()), PAGE
            ) as made:
                if copied:
                    made.copy_plain()
                made.apply_delta(Delta(fd))
                whole = b"".join(
                    made.read_pages([number]) for number in range(-(-made.bytes // PAGE))
                )[: made.bytes]
                assert made.hash_content().sha256 == sha256(whole).hexdigest()
                if copied:
                    scratch.seek(0)
                    assert scratch.read() == whole
                found.append(whole)
    assert found[0] == found[1]
    return found[0]


def mutated(data: bytes, random: Random, most: int) -> bytes:
    """The same with a few pages changed, and then cut, or with pages more: of something, or of
    zeros."""
    new = bytearray(data)
    for _ in range(random.randrange(4)):
        if new:
            at = random.randrange(len(new))
            new[at : at + 8] = random.randbytes(len(new[at : at + 8]))
    if random.random() < 0.5:
        pages = random.randrange(most)
        more = pages * PAGE - len(new)
        new = (
            new[: pages * PAGE]
            if more < 0
            else new + (bytes(more) if random.random() < 0.5 else random.randbytes(more))
        )
    return bytes(new)


@settings(max_examples=150)
@given(st.randoms(use_true_random=False))
def test_every_image_comes_back_along_a_chain_in_which_sizes_shrink_and_grow(
    random: Random,
) -> None:
    """Row 37."""
    newer = mutated(database_image(random.randrange(1, 30)), random, 30)
    for _ in range(4):
        older = mutated(newer, random, 30)
        with file() as fd:
            write(fd, older, newer)
            assert read(fd, newer) == older
        newer = older


def test_an_image_without_a_base_is_packed_by_itself() -> None:
    data = database_image(300)
    with file() as fd:
        assert write(fd, data, None) < len(data) // 10
        assert read(fd, None) == data


def test_what_the_base_has_elsewhere_is_not_stored_again() -> None:
    """A page that was split has half of what was on it in another one of the newer image."""
    random = Random(5)
    halves = [random.randbytes(PAGE // 2) for _ in range(200)]
    zeros = bytes(PAGE // 2)
    old = b"".join(halves)
    new = b"".join(half + zeros for half in halves)
    with file() as fd:
        assert write(fd, old, new) < len(old) // 10
        assert read(fd, new) == old


def test_more_than_one_group_is_written_and_read() -> None:
    old, new = database_image(3000, 1), database_image(3000, 2)
    with file() as fd:
        write(fd, old, new)
        assert len(list(Delta(fd).groups())) == -(-3000 * PAGE // delta.GROUP_BYTES) > 1
        assert read(fd, new) == old


def test_no_bit_of_it_can_flip_unseen() -> None:
    old, new = database_image(3, 1), database_image(3, 2)
    with file() as fd:
        size = write(fd, old, new)
        whole = os.pread(fd, size + 100, 0)
    assert len(whole) == size
    for at in range(len(whole)):
        with (
            file(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]) as fd,
            pytest.raises(ValueError, match="SHA-256"),
        ):
            Delta(fd)


@pytest.mark.parametrize("cut", [0, 10, 40, 200])
def test_what_was_cut_short_is_found(cut: int) -> None:
    with file() as fd:
        size = write(fd, database_image(3, 1), database_image(3, 2))
        os.ftruncate(fd, min(cut, size))
        with pytest.raises(ValueError, match="SHA-256"):
            Delta(fd)


def test_it_is_not_put_on_another_base() -> None:
    with file() as fd:
        write(fd, database_image(5, 1), database_image(6, 2))
        with pytest.raises(ValueError, match="of another base"):
            read(fd, database_image(7, 2))


def test_what_ends_it_between_two_groups_is_raised() -> None:
    class EndError(Exception):
        pass

    def check() -> None:
        raise EndError

    header = Header(delta.FORMAT, PAGE, PAGE, "", 0, None)
    with file() as fd, pytest.raises(EndError):
        delta.write_delta(fd, header, [0], pages_of(database_image(1)), pages_of(b""), check)
