"""End the logins that checks of ours have left in a database, and no other.

A login stands for 30 days. Those of a check are known by the User-Agent that they were made with,
which T3 notes: so what a check left that was killed, the next one ends, too.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import t3_backup
from t3_backup.t3 import commands, program
from t3_backup.t3.limits import STEP_SECONDS, ending_seconds

USER_AGENT = f"t3-backup/{t3_backup.__version__} (login check)"
_OURS = re.compile(r"t3-backup/\S{1,64} \(login check\)")
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.:-]{0,127}")  # and so no option of the command's
_LIMIT_BYTES = 8 << 20  # of a list: more than ten thousand logins


class _Stopped(Exception):
    """What keeps a command of T3's from doing its part."""


def end_ours(t3: Path, base_dir: Path, seconds: float = STEP_SECONDS) -> str:
    """End every login of ours in `base_dir`, as its owner; say what is left, and why.

    Empty: nothing is. Each call of the program may take so many seconds, and all of them three
    times as many.
    """
    return asyncio.run(_end_ours(t3, base_dir, seconds))


def find_ours(text: bytes) -> list[str]:
    """Find the ids of our logins in what `t3 auth session list --json` prints.

    Raises ValueError for what is no such list.
    """
    try:
        listed = json.loads(text)
        # one that has no User-Agent is somebody else's
        ours = [one for one in listed if _OURS.fullmatch(str(one["client"].get("userAgent")))]
        found = [str(one["sessionId"]) for one in ours]
    except (RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError("it is no list of logins") from None
    if not all(map(_ID.fullmatch, found)):
        raise ValueError("it has an id of another form")
    return found


async def _end_ours(t3: Path, base_dir: Path, seconds: float) -> str:
    until = time.monotonic() + ending_seconds(seconds)
    try:
        listed = await _call(program.list_sessions_command(t3, base_dir), seconds)
        left = find_ours(listed)
    except (_Stopped, ValueError) as error:
        return f"the login of this check: t3 auth session list: {error}"
    while left:
        line = program.revoke_session_command(t3, base_dir, left[0])
        try:
            await _call(line, min(seconds, until - time.monotonic()))
        except _Stopped as stopped:
            many = f"{len(left)} logins" if len(left) > 1 else "a login"
            return f"{many} of our checks: t3 auth session revoke {left[0]}: {stopped}"
        left = left[1:]
    return ""


async def _call(line: Sequence[str], seconds: float) -> bytes:
    """Call T3; return what it printed. Raises _Stopped."""
    try:
        done = await commands.call(line, max(0.0, seconds), _LIMIT_BYTES)
    except TimeoutError:
        raise _Stopped("it did not end in time") from None
    except OSError as error:
        raise _Stopped(str(error.strerror)) from None
    if done.code != 0:
        raise _Stopped(done.why() or f"it ended with {done.code}")
    return done.out
