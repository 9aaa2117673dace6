"""While this file is there, nothing is changed by itself: the reason is in it, for whoever comes to look."""

from __future__ import annotations

import os
from pathlib import Path

from t3_backup import copier
from t3_backup.replacing import replace_file

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def reason(path: Path) -> str | None:
    """Why it is frozen; None where it isn't."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "no reason is given"
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} can't be read: {error.strerror}"


def freeze(path: Path, why: str) -> None:
    """Durable when this returns. Raises OSError."""
    fd = os.open(path.parent, _FOLDER)
    try:
        replace_file(fd, path.name, f"{why}\n".encode(), 0o644)
    finally:
        os.close(fd)


def thaw(path: Path) -> bool:
    """Whether it was frozen. Raises OSError."""
    fd = os.open(path.parent, _FOLDER)
    try:
        os.unlink(path.name, dir_fd=fd)
        copier.sync_directory(fd, str(path.parent))
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)
    return True
