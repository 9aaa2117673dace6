"""While this file is there, nothing is changed by itself: the reason is in it, for whoever comes to look."""

from __future__ import annotations

from pathlib import Path

from t3_backup.system.atomic_file import remove_path, replace_path


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
    replace_path(path, f"{why}\n".encode(), 0o644)


def thaw(path: Path) -> bool:
    """Whether it was frozen. Raises OSError."""
    return remove_path(path)
