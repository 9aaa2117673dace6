"""Old snapshots, which an earlier script left in folders of their users' own, become snapshots of ours.

Never in place: who owns a folder can change what is in it, and may hold it open. The folder is set aside; each snapshot in
it is copied by its owner's worker into a new file of root's, proven, sealed and named by its old time; only then does the
original go. What can't be taken over stays where it is, in a folder that says so.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from t3_backup.backup import verdict
from t3_backup.backup.snapshot import Order, describe, settle
from t3_backup.errors import Cancelled, Failure, SourceError, SourceRefused, StoreError, TryLater, WorkerLost, explain
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.names import ParsedName, legacy_name
from t3_backup.store.store import Store
from t3_backup.worker import client
from t3_backup.worker.operations.legacy import CopyLegacy, ListLegacy, RemoveLegacy


@dataclass
class TakenOver:
    """What came of it: names of the new snapshots, newest first, and what somebody should know."""

    names: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def set_aside(order: Order, store: Store) -> None:
    """Move the account's shelf out of the way, where it is its user's own: an earlier script made it so.

    Raises StoreError where snapshots of ours are in it: then that script still runs, and has given our shelf away.
    """
    user, uid = order.account.user, order.account.uid
    if not store.is_given_away(user, uid):
        return
    folder = store.open_aside(user, uid)
    try:
        client.ask(order.account, ListLegacy(), order.limits, order.stopping, folder=folder)
    except (TryLater, Cancelled):
        raise
    except SourceRefused:
        path = store.path / user
        raise StoreError(
            f"{path} is ours, but was given to its user: does an old script still run (t3-backup-state doctor)? "
            f"Remove it; then: chown root: {path}"
        ) from None
    except (Failure, OSError):
        pass  # he has closed it even to himself: that must not cost him the backup of today
    finally:
        os.close(folder)
    store.set_aside(user)


def import_legacy(order: Order, store: Store, account_dir: AccountDir, until: float) -> TakenOver:
    """Take over all that was set aside of the account, the newest first, `until` then (a time of time.monotonic()).

    What is not done (out of time, no room, a stop) is the next run's. Never raises for what is wrong with an old one.
    """
    done = TakenOver()
    for aside in store.aside(account_dir.user):
        path = store.path / aside
        later: list[str] = []
        try:
            _empty(order, store, account_dir, aside, until, done, later)
            if not later and (left := store.end_aside(account_dir.user, aside)):
                done.warnings.append(f"{account_dir.user}: not all old snapshots could be taken over: the rest is in {left}")
        except Cancelled:
            break
        except (Failure, OSError) as error:
            later.append(explain(error))
        if later:
            done.warnings.append(f"{account_dir.user}: the rest of {path} is left to the next run: {later[0]}")
    return done


def _empty(
    order: Order, store: Store, account_dir: AccountDir, aside: str, until: float, done: TakenOver, later: list[str]
) -> None:
    """Take over what is in one folder, each name once; `later` tells what is worth a further try. Raises what ends it all."""
    folder = store.open_aside(aside, order.account.uid)
    after = ""
    try:
        while names := _names_after(_left(order, until), folder, after):
            for after in names:
                one, since = _left(order, until), time.time()
                parsed = legacy_name(after, datetime.now(UTC))
                if parsed is None:
                    raise WorkerLost("the worker named what is no old snapshot")
                try:
                    if new := _take_over(one, account_dir, folder, after, parsed):
                        done.names.append(new)
                    client.ask(order.account, RemoveLegacy(after, since), one.limits, order.stopping, folder=folder)
                except Cancelled:
                    raise
                except SourceError as error:
                    done.warnings.append(f"{account_dir.user}: {store.path / aside / after} stays: {error}")
                except (Failure, OSError) as error:
                    later.append(f"{after}: {explain(error)}")
    finally:
        os.close(folder)


def _names_after(order: Order, folder: int, after: str) -> tuple[str, ...]:
    return client.ask(order.account, ListLegacy(after), order.limits, order.stopping, folder=folder).names


def _left(order: Order, until: float) -> Order:
    """The order, with the time that is left. Raises TryLater where there is none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TryLater("out of time: half of T3_BACKUP_TIMEOUT is for old snapshots")
    return replace(order, limits=replace(order.limits, seconds=seconds))


def _take_over(order: Order, account_dir: AccountDir, folder: int, name: str, parsed: ParsedName) -> str | None:
    """Take over one: its new name; None where it is ours already. Raises SourceError where it is no good, Failure and OSError."""
    order = replace(order, when=parsed.when, label=parsed.label)
    until = time.monotonic() + order.limits.seconds
    with account_dir.begin() as staged_file:
        copied = client.ask(
            order.account, CopyLegacy(name), order.limits, order.stopping, order.listen, file=staged_file.writer, folder=folder
        )
        content, proven = settle(order, staged_file, copied, until)
        judged = verdict.judge_copy(proven.problems, proven.census, copied.method, None)
        if judged.verdict != "verified":
            raise SourceError(f"{judged.verdict}: {'; '.join(judged.reasons[:3])}")
        snapshots = account_dir.snapshots()
        # A run that died between the sealing and the removal has left it in both places.
        for twin in snapshots:
            if (twin.when, twin.label, twin.sha256) == (parsed.when, parsed.label, content.sha256):
                return None
        sequence = min([1, *(snapshot.sequence for snapshot in snapshots)]) - 1
        snapshot = describe(order, account_dir, sequence, copied, proven, content, judged)
        account_dir.publish(staged_file, snapshot)
    return snapshot.name
