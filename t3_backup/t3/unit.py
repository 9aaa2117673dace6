"""Name the systemd unit that T3's servers run as, its settings, and how it ends."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NAME = "t3-serve"
TEMPLATE = f"{_NAME}@.service"
DROP_INS = Path("/etc/systemd/system") / f"{TEMPLATE}.d"
SETTINGS_DIR = Path("/etc") / _NAME  # one file an account, USER.env
PORT_VARIABLE = "T3_PORT"  # in such a file: where the server listens
# the exit status of a server that was asked to stop, which systemd takes for a failure
STOPPED_STATUS = 130
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")
_KEPT = re.compile(r"[A-Za-z0-9:_.]")


def unit_name(user: str) -> str:
    r"""Name the unit of a user's server, as systemd(1) writes it: t3-serve@alice.

    The name of a user which is not of letters, digits and `_.@-` is escaped as by
    systemd-escape(1), and the unit has to undo that (`User=%I`): `t3-serve@CORP\x5cbob`.
    """
    return f"{_NAME}@{user if _PLAIN.fullmatch(user) else _escape(user)}"


def _escape(text: str) -> str:
    """Write a text as the instance of a unit, as systemd-escape(1) does."""
    return "".join(
        "-"
        if char == "/"
        else char
        if _KEPT.fullmatch(char) and (at or char != ".")
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
        for at, char in enumerate(text)
    )
