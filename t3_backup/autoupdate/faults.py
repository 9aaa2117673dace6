"""Tell what is the matter with one account from what is the matter with a version.

A version that fails on one account would fail on the next: that ends a bump. What an account has
brought about by itself concerns no other.
"""

from __future__ import annotations

from t3_backup.errors import Failure


class AccountFault(Failure):
    """The account itself keeps it from being moved: it is left out, and the others go on."""
