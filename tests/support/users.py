"""Names of system users that tests make, and their end."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

from demo.users import remove_leftover

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes real users, so it needs root")


def _letters(number: int) -> str:
    """A number in base 36: a user's name has 32 characters at most."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return (_letters(number // 36) if number >= 36 else "") + digits[number % 36]


_US = _letters(os.getpid())  # not that of a child which a test forks


def user_name(name: str) -> str:
    """The name of a system user that no other process which runs tests has: two workers, or two
    checkouts, never share one."""
    return f"t3t-{_US}-{name}"


def remove_leftover_users() -> None:
    """Remove the users of test processes that were killed."""
    for entry in pwd.getpwall() if os.geteuid() == 0 else []:
        owner = re.match(r"t3t-([0-9a-z]+)-", entry.pw_name)
        if owner and not Path("/proc", str(int(owner[1], 36))).exists():
            # another process was first
            with contextlib.suppress(FileExistsError, subprocess.CalledProcessError):
                remove_leftover(entry.pw_name)
