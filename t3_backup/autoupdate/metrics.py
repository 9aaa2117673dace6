"""Write the metrics of t3-autoupdate; their names are an interface."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from t3_backup.accounts import read_map
from t3_backup.autoupdate import freeze, journal
from t3_backup.autoupdate.context import Context
from t3_backup.errors import Failure
from t3_backup.system.atomic_file import opened, replace_file
from t3_backup.t3.login_report import read_login

if TYPE_CHECKING:
    from prometheus_client import Gauge

NAME = "t3_autoupdate.prom"


def render_metrics(context: Context) -> bytes:
    """Render the file. Raises ImportError without python3-prometheus-client, and Failure."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"t3_autoupdate_{name}", meaning, labels, registry=registry)

    plan = context.journals.load()
    history = context.journals.history()
    frozen = gauge("frozen", "1 while nothing is changed by itself.")
    frozen.set(freeze.read_reason(context.settings.freeze) is not None)
    meaning = "1; the version of the account's program."
    program = gauge("account_version_info", meaning, "account", "version")
    held = gauge("account_held", "1 while the account's server may not start.", "account")
    meaning = "1 while the account is left out of each change."
    alone = gauge("account_frozen", meaning, "account")
    own = freeze.frozen_accounts(context.settings.root)
    for user in context.installations.linked_users():
        alone.labels(user).set(user in own)
        program.labels(user, context.installations.linked_version(user)).set(1)
        held.labels(user).set(context.installations.is_held(user))
    _add_logins(context, gauge)
    waiting = gauge("deferred", "Accounts that a bump has left for later.")
    waiting.set(len(plan.users(journal.DEFERRED, journal.WAITING)) if plan else 0)
    interrupted = gauge("interrupted", "Accounts of which a move was begun and has not ended.")
    interrupted.set(len(plan.users(*journal.UNDER_WAY)) if plan else 0)
    if history:
        ended = gauge("last_ended_timestamp_seconds", "When the last bump or rollback ended.")
        ended.set(datetime.fromisoformat(history[0].ended).timestamp())
        last_ok = gauge("last_ok", "1 where the last bump or rollback was done.")
        last_ok.set(history[0].result == "done")
    return bytes(generate_latest(registry))


def _add_logins(context: Context, gauge: Callable[..., Gauge]) -> None:
    """Add what the last login of each account came to; one not in the map is passed over."""
    meaning = "1 where somebody could log in when that was last tried, else 0."
    well = gauge("account_login_ok", meaning, "account")
    meaning = "When a login to the account was last tried."
    when = gauge("account_login_timestamp_seconds", meaning, "account")
    users: tuple[str, ...] = ()
    with contextlib.suppress(Failure):  # without a map the rest is told
        users = read_map(context.user_map).users
    for user in users:
        found = read_login(context.settings.root, user).login
        if found is not None and found.paired is not None:
            well.labels(user).set(found.paired)
            when.labels(user).set(datetime.fromisoformat(found.at).timestamp())


def write_metrics(context: Context) -> None:
    """Put the file into its folder; only warn where that can't be done."""
    folder = context.textfiles
    if folder is None or not folder.is_dir():
        return
    try:
        content = render_metrics(context)
        with opened(folder) as fd:
            # a check beside a bump writes it, too
            temporary = f".{NAME}.{os.urandom(6).hex()}"
            replace_file(fd, NAME, content, 0o644, temporary=temporary)
    except ImportError:
        return
    except (Failure, OSError, ValueError) as error:
        context.warn(f"{folder / NAME} could not be written: {error}")
