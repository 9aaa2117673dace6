"""Keep T3's versions as they are while a file is there, which holds the reason.

One file is for all accounts, and there may be another for an account alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from t3_backup.errors import Failure
from t3_backup.system.atomic_file import remove_path, replace_path

_OF_ACCOUNT = "frozen"


def account_file(root: Path, user: str) -> Path:
    """Name the file that freezes one account; `root` is the folder of programs and links."""
    return root / user / _OF_ACCOUNT


def frozen_accounts(root: Path) -> dict[str, str]:
    """Say of each account that is frozen alone why it is."""
    found = {path.parent.name: read_reason(path) for path in sorted(root.glob(f"*/{_OF_ACCOUNT}"))}
    return {user: why for user, why in found.items() if why is not None}


def read_reason(path: Path) -> str | None:
    """Read why it is frozen; None where it isn't."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "no reason is given"
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} can't be read: {error.strerror}"


def report_frozen(path: Path, say: Callable[[str], None]) -> bool:
    """Tell whether nothing is to be done by itself, and say so where that is."""
    if (why := read_reason(path)) is not None:
        say(f"frozen, nothing is done: {why}")
    return why is not None


def raise_if_frozen(path: Path) -> None:
    """Raise Failure where it is frozen."""
    if (why := read_reason(path)) is not None:
        raise Failure(f"frozen ({path}): {why}; once that is mended: t3-autoupdate thaw")


def freeze(path: Path, why: str) -> None:
    """Freeze it; durable when this returns. Raises OSError."""
    path.parent.mkdir(exist_ok=True)  # an account may have no program of its own yet
    replace_path(path, f"{why}\n".encode(), 0o644)


def thaw(path: Path) -> bool:
    """End the freeze, and tell whether there was one. Raises OSError."""
    return path.parent.is_dir() and remove_path(path)
