"""Tell whether a block of code leaves a file open."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator


@contextlib.contextmanager
def leaves_no_file_open() -> Iterator[None]:
    """Fail if a descriptor is open after the block that was not open before it.

    What earlier tests left to the garbage collector goes first: it would be closed at any moment.
    """
    gc.collect()
    before = _open_files()
    yield
    left = _open_files() - before
    assert not left, f"left open: {sorted(left)}"


def _open_files() -> set[tuple[int, str]]:
    """Return each open descriptor of this process with what it names."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this very listing
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found
