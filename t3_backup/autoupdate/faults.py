"""Tell what is the matter with one account from what is the matter with a version.

A version that fails on one account would fail on the next: that ends a bump. What an account has
brought about by itself concerns no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from t3_backup.errors import Cancelled, Failure, LockHeld, StoreError, SystemdUnanswered, Upgraded
from t3_backup.t3.servers import Server

# what has nothing to do with the account that was asked about: the next fares no better
OF_ALL = (Cancelled, LockHeld, StoreError, SystemdUnanswered, Upgraded)


class AccountFault(Failure):
    """The account itself keeps it from being moved: it is left out, and the others go on."""


def find_faults(accounts: Sequence[Server], check: Callable[[Server], object]) -> dict[str, str]:
    """Check each account, and say what is the matter with those that fail, by user.

    Raises Failure for what is no account's own, and where all of several fail: what befalls
    everybody is nobody's fault.
    """
    reasons = {one.user: why_faulty(one.user, partial(check, one)) for one in accounts}
    found = {user: why for user, why in reasons.items() if why}
    if 1 < len(found) == len(accounts):
        raise Failure("; ".join(f"{user}: {why}" for user, why in found.items()))
    return found


def why_faulty(user: str, check: Callable[[], object]) -> str:
    """Check one account, and say what is the matter with it; empty where nothing is.

    Raises Failure for what is not its own.
    """
    try:
        check()
    except OF_ALL:
        raise
    except Failure as failure:
        return str(failure).removeprefix(f"{user}: ")
    return ""
