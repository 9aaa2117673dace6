"""Say what an old state means for T3's logins."""

from __future__ import annotations

from datetime import datetime, timedelta

# From when they were made, whatever use was made of them.
_LAST = timedelta(days=30)
_SIGNED_BY = "environment-id and secrets/server-signing-key.bin"


def explain_ended(taken: datetime, now: datetime, *, files: bool) -> str:
    """Say which logins of a state of that time have ended; empty: they need not have.

    `files`: whether what signs and names them comes back, too.
    """
    since = now - _LAST
    if taken > since:
        return ""
    ended = f"logins made before {since:%Y-%m-%d} have ended, and so have all in it: log in again"
    return ended if files else f"{ended}; {_SIGNED_BY} stay as they are"
