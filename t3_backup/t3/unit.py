"""Name the systemd unit that T3's servers run as, its settings, and how it ends."""

from __future__ import annotations

from pathlib import Path

_NAME = "t3-serve"
TEMPLATE = f"{_NAME}@.service"
DROP_INS = Path("/etc/systemd/system") / f"{TEMPLATE}.d"
SETTINGS_DIR = Path("/etc") / _NAME  # one file an account, USER.env
PORT_VARIABLE = "T3_PORT"  # in such a file: where the server listens
# the exit status of a server that was asked to stop, which systemd takes for a failure
STOPPED_STATUS = 130


def unit_name(user: str) -> str:
    """Name the unit of a user's server, as a person types it."""
    return f"{_NAME}@{user}"
