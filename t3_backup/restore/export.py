"""Write a snapshot to a new file elsewhere, as a plain database that is proven."""

from __future__ import annotations

import errno
import os
import secrets
import threading
from dataclasses import replace
from pathlib import Path

from t3_backup.errors import Failure, UsageError, explain
from t3_backup.history import verify
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import StoredDatabase
from t3_backup.store.staged_file import StagedFile
from t3_backup.system import native
from t3_backup.worker.limits import Limits

_MODE = 0o600


def export_database(
    account_dir: AccountDir,
    image: StoredDatabase,
    path: Path,
    limits: Limits,
    stopping: threading.Event,
) -> None:
    """Prove a database of a snapshot and write it to `path`, which must not be there.

    One's own, mode 0600; durable when this returns. A damaged one is written, too: as evidence.
    Raises UsageError for a place that can't be, Failure and OSError.
    """
    folder = _open_folder(path)
    try:
        listing, unbounded = account_dir.read_listing(), replace(limits, reserve=0)
        source = verify.open_image(account_dir, listing, image, unbounded, stopping, folder)
        try:
            found = verify.verify_bytes(source, image, limits, stopping)
            verify.require_sound(image.name, found, "written")
            with StagedFile.create(folder, f".partial-{secrets.token_hex(8)}") as staged_file:
                native.copy(source, staged_file.writer, image.bytes)
                os.fchmod(staged_file.writer, _MODE)
                native.sync_file(staged_file.writer, str(path))
                staged_file.name_as(path.name)
            native.sync_directory(folder, str(path.parent))
        finally:
            os.close(source)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise Failure(f"--to {path}: {explain(error)}; nothing was written") from None
    finally:
        os.close(folder)


def _exists(path: Path) -> UsageError:
    return UsageError(f"--to {path}: there is such a file already; nothing is overwritten")


def _open_folder(path: Path) -> int:
    """Open the folder of `path`, reached without a symlink.

    It may be in a home, whose owner could turn it elsewhere meanwhile.
    """
    whole = Path(os.path.abspath(path))  # no symlink is resolved by it
    if whole.name in ("", ".", "..") or os.path.lexists(whole):
        raise _exists(path)
    below = str(whole.parent.relative_to("/"))
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return native.open_beneath(root, below, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        what = error.strerror
        if error.errno == errno.ELOOP:
            what = "a symlink on the way, which is not followed"
        raise UsageError(f"--to {path}: {whole.parent}: {what}") from None
    finally:
        os.close(root)
