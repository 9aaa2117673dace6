"""Keep what the last login check of an account came to, for whoever watches over the machine.

t3-autoupdate writes it, root's and to be read by all, into the account's folder beneath its root;
t3-backup tells of it. No secret is in it. That nobody can log in stays until somebody has.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from t3_backup.records import GROWING, decode_record, parse_object
from t3_backup.system.atomic_file import opened, replace_file
from t3_backup.t3.output import redact
from t3_backup.text import format_age, printable, quote

NAME = "login.json"
_FORMAT = 1
_MOST_BYTES = 64 << 10
_OLD = timedelta(days=2)  # what was found before may have been mended since
_FUTURE = timedelta(minutes=5)  # clocks that are set right now and then differ by less


def _time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without a zone")
    return text


@dataclass(frozen=True)
class Login:
    """What a login check came to. Times are RFC 3339, UTC."""

    JSON_KEYS = GROWING

    paired: bool | None  # None: not tried
    version: str  # of T3
    at: Annotated[str, _time]
    since: Annotated[str, _time]  # when a check first came to the same
    reason: str = ""  # why nobody can log in, or why it was not tried


@dataclass(frozen=True)
class LoginReport:
    """What is known of one account's logins."""

    login: Login | None = None  # None: no check is known
    problem: str = ""  # why it can't be read

    def trouble(self, user: str, now: datetime) -> str:
        """Say that nobody can log in, or that it can't be told; empty where neither is so."""
        command = f"next: t3-autoupdate check --user {quote(user)}"
        if self.problem:
            return f"{self.problem}; {command}"
        if self.login is None or self.login.paired is not False:
            return ""
        seen, began = map(datetime.fromisoformat, (self.login.at, self.login.since))
        when = f"since {began:%Y-%m-%d %H:%M} UTC"
        if now - seen > _OLD:
            when += f", and not checked for {format_age((now - seen).total_seconds())}"
        if seen - now > _FUTURE:
            when += ", which is in the future: was the clock set back?"
        why = printable(self.login.reason)
        return f"nobody can log in to T3 {self.login.version} ({when}): {why}; {command}"


UNKNOWN = LoginReport()


def write_login(root: Path, user: str, login: Login) -> None:
    """Replace what is known of an account's logins; durable. Raises OSError.

    One that was not tried changes nothing of one that failed.
    """
    before = read_login(root, user).login
    if before is not None and before.paired is False and login.paired is None:
        return
    if before is not None and before.paired is login.paired:
        login = replace(login, since=before.since)
    login = replace(login, reason=printable(redact(login.reason)))
    data = json.dumps({"format": _FORMAT} | asdict(login)).encode() + b"\n"
    (root / user).mkdir(exist_ok=True)
    with opened(root / user) as folder:
        # a check and a move may end at once
        replace_file(folder, NAME, data, 0o644, temporary=f"{NAME}.{os.urandom(6).hex()}")


def read_login(root: Path, user: str) -> LoginReport:
    """Read what is known of an account's logins; whatever is there, it ends nothing."""
    path = root / user / NAME
    try:
        with open(path, "rb") as file:
            value = parse_object(file.read(_MOST_BYTES))
        if value.get("format") != _FORMAT:
            raise ValueError("another format")
        return LoginReport(decode_record(Login, value))
    except FileNotFoundError:
        return UNKNOWN
    except OSError as error:
        return LoginReport(problem=f"{path} can't be read: {error.strerror}")
    except ValueError as error:
        return LoginReport(problem=f"{path} can't be read: {printable(str(error))}")
