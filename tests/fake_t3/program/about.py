"""What this one is: version, release, level, where it keeps its data, and how it is bad."""

from __future__ import annotations

import json
import os
import pwd
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
_ABOUT = json.loads((HERE / "variant.json").read_text())
VERSION: str = _ABOUT["version"]
TARGETS: list[str] = _ABOUT["targets"]  # of a hostile one
_SLOW: dict[str, float] = _ABOUT["slow"]  # seconds, by what takes them


def _is_live() -> bool:
    """Whether this is where one is broken that is so for real servers alone.

    While this file is there, for the users that it names, or for all; the gate's sandbox has none.
    """
    try:
        users = Path("/run/t3-fake-live").read_text().split()
        return not users or pwd.getpwuid(os.getuid()).pw_name in users
    except (OSError, KeyError):  # a transient user may have no name
        return False


VARIANT: str = _ABOUT["variant"] if not _ABOUT["live_only"] or _is_live() else "good"

RELEASE = tuple(int(part) for part in VERSION.partition("-")[0].split("."))
_LEVELS = {
    (0, 0, 24): 30,
    (0, 0, 25): 31,
    (0, 0, 26): 32,
    (0, 0, 29): 34,
    (0, 0, 32): 37,
    (0, 0, 33): 40,
    (0, 0, 42): 52,
    (0, 0, 44): 54,
    (0, 0, 46): 61,  # the nightlies
    (0, 1, 0): 62,
    (0, 1, 1): 67,
    (0, 1, 3): 69,
    (0, 1, 4): 72,
    (0, 1, 6): 76,
    (0, 1, 7): 79,
    (0, 1, 8): 80,
}
LEVEL = max([30, *(level for release, level in _LEVELS.items() if release <= RELEASE)])
IS_V2 = LEVEL > 54
# from when on it is one executable, with all that this brought
IS_EXECUTABLE = RELEASE >= (0, 0, 42)
DATABASE = "statev2.sqlite" if IS_V2 else "state.sqlite"
BUSY_S = 5.0 if RELEASE >= (0, 0, 34) else 0.0

ENDPOINT = "/api/auth/bootstrap" if LEVEL == 30 else "/api/auth/browser-session"
if VARIANT == "pairing-renamed":
    ENDPOINT = "/api/auth/web-session"
# how long a server stays that was asked to end while a tab is open
LINGER_S = float(os.environ.get("T3_FAKE_LINGER", "3" if IS_EXECUTABLE else "20"))
# From 0.0.42 on it listens for so long before it hears: what it is asked meanwhile, it never answers.
DEAF_S = float(os.environ.get("T3_FAKE_DEAF", "0.3" if IS_EXECUTABLE else "0"))
# what a login may do: the column of that, and what is in it
ROLE = "role" if LEVEL == 30 else "scopes"
_SCOPES = ["orchestration:read", "orchestration:operate", "terminal:operate", "review:write"]
MAY: str | list[str] = "client" if LEVEL == 30 else _SCOPES


def now(later: timedelta = timedelta()) -> str:
    """Write the time as T3 does."""
    return (datetime.now(UTC) + later).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(name: str) -> str:
    """Read a file that lies beside this one."""
    return (HERE / name).read_text()


def be_slow(what: str) -> None:
    """Let time pass, where this one takes it for that."""
    time.sleep(_SLOW.get(what, 0))


def burn(what: str) -> None:
    """Let time of the processor pass."""
    until = time.process_time() + _SLOW.get(what, 0)
    while time.process_time() < until:
        pass
