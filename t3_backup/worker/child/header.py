"""The header of a copy, in which it says whether it is in WAL mode."""

from __future__ import annotations

import os


def clear_wal_flag(fd: int) -> None:
    """Say in the header of the copy in an open file that it is not in WAL mode.

    Those are its bytes 18 and 19 (sqlite.org/fileformat.html). It has no -wal and never gets one:
    opened plainly, it must not make sidecars. Nothing else in it changes. Raises OSError.
    """
    if os.pread(fd, 2, 18) != b"\x02\x02":
        return
    try:
        os.pwrite(fd, b"\x01\x01", 18)  # two bytes of a page that is there: never a short write
    except OSError as error:
        raise OSError(error.errno, error.strerror, "the new snapshot") from error
