"""Copying: a failure of the destination reaches the caller as the system's own error."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from t3_backup.worker.child.connection import execute
from t3_backup.worker.child.copy import sqlite_errors
from t3_backup.worker.child.pinned_read import open_destination
from t3_backup.worker.child.source import LiveDatabase
from t3_backup.worker.child.vfs import Destination, register_vfs


def test_a_copy_that_cannot_be_written_fails_with_the_number_and_text_of_its_cause(
    tmp_path: Path,
) -> None:
    register_vfs()
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fd = os.open(tmp_path / "copy", os.O_CREAT | os.O_RDONLY, 0o600)
    try:
        with Destination(fd) as destination, closing(open_destination(destination)) as copy:
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
                with sqlite_errors(LiveDatabase(folder, tmp_path / "source", 0), destination):
                    execute(copy, "CREATE TABLE a AS SELECT zeroblob(32 << 20) AS b")
            assert caught.value.errno == errno.EBADF
            assert isinstance(caught.value.__cause__, apsw.IOError)
    finally:
        os.close(fd)
        os.close(folder)
