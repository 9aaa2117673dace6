"""Make snapshots of ours of the old ones that an earlier script left in folders of the users' own.

A run only sets such a folder aside; `import-legacy` takes over what is in it. Never in place: who
owns a folder can change what is in it, and may hold it open. Each snapshot is copied by its owner's
worker into a new file of root's, proven, sealed and named by its old time; only then does the
original go. What can't be taken over stays where it is, in a folder that says so.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from t3_backup.accounts import folder_name, user_of_folder
from t3_backup.backup import verdict
from t3_backup.backup.copied_files import copied_files, settle_and_prove
from t3_backup.backup.order import SnapshotOrder
from t3_backup.backup.snapshot import make_manifest
from t3_backup.backup.verdict import Judged
from t3_backup.errors import (
    Cancelled,
    Failure,
    SourceError,
    SourceRefused,
    StoreError,
    TryLater,
    WorkerLost,
    explain,
)
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.listing import Listing
from t3_backup.store.names import ParsedName, legacy_name
from t3_backup.store.store import Store
from t3_backup.system.deadline import Deadline
from t3_backup.t3.files import DATABASE_NAME
from t3_backup.text import quote
from t3_backup.worker import client
from t3_backup.worker.operations.legacy import CopyLegacy, ListLegacy, RemoveLegacy


@dataclass
class ImportResult:
    """The names of the new snapshots, newest first, and what somebody should know."""

    listing: Listing  # of the account's folder since then
    names: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def users_with_legacy(store: Store) -> list[str]:
    """List who has a folder of an earlier script in the store, set aside or not."""
    os.lseek(store.fd, 0, os.SEEK_SET)
    beside = {name.partition("+")[0] for name in os.listdir(store.fd) if "+" in name}
    users = sorted({*store.users(), *filter(None, map(user_of_folder, beside))})
    return [user for user in users if store.list_set_aside(user) or _is_given_away(store, user)]


def _is_given_away(store: Store, user: str) -> bool:
    try:
        return store.is_given_away(user, pwd.getpwnam(user).pw_uid)
    except KeyError:  # whoever it was is gone
        return False


def tell_waiting(user: str, store: Store) -> tuple[str, ...]:
    """Say which folders of an earlier script wait to be taken over, and what to type."""
    return tuple(
        f"{user}: old snapshots wait in {store.path / name}; take them over: "
        f"t3-backup-state import-legacy {quote(user)}"
        for name in store.list_set_aside(user)
    )


def set_aside(order: SnapshotOrder, store: Store) -> None:
    """Move an account's folder out of the way, where it is its user's own.

    An earlier script made it so. An empty one goes. Raises StoreError where snapshots of ours are
    in it: then that script still runs, and has given our folder away.
    """
    user, uid = order.account.user, order.account.uid
    if not store.is_given_away(user, uid):
        return
    with contextlib.suppress(OSError):  # it is not empty
        os.rmdir(folder_name(user), dir_fd=store.fd)
        return
    folder = store.open_set_aside(user, uid)
    try:
        client.ask(order.account, ListLegacy(), order.limits, order.stopping, folder=folder)
    except (TryLater, Cancelled):
        raise
    except SourceRefused:
        path = store.path / folder_name(user)
        raise StoreError(
            f"{path} is ours, but was given to its user: "
            "does an old script still run (t3-backup-state doctor)? "
            f"Remove it; then: chown root: {path}"
        ) from None
    except (Failure, OSError):
        pass  # they have closed it even to themselves: that must not cost them the backup of today
    finally:
        os.close(folder)
    store.set_aside(user)


def import_legacy(
    order: SnapshotOrder,
    store: Store,
    account_dir: AccountDir,
    listing: Listing,
    deadline: Deadline,
) -> ImportResult:
    """Import all that was set aside of an account until the deadline, newest first.

    What is not done (out of time, no room, a stop) waits for the next call. Never raises for what
    is wrong with an old one.
    """
    done = ImportResult(listing)
    for aside in store.list_set_aside(account_dir.user):
        path = store.path / aside
        later: list[str] = []
        try:
            _import_folder(order, store, account_dir, aside, deadline, done, later)
            if not later and (left := store.remove_set_aside(account_dir.user, aside)):
                done.warnings.append(
                    f"{account_dir.user}: not all old snapshots could be taken over: "
                    f"the rest is in {left}"
                )
        except Cancelled:
            break
        except (Failure, OSError) as error:
            later.append(explain(error))
        if later:
            done.warnings.append(
                f"{account_dir.user}: the rest of {path} is not taken over yet: {later[0]}; "
                f"next: t3-backup-state import-legacy {quote(account_dir.user)}"
            )
    return done


def _import_folder(
    order: SnapshotOrder,
    store: Store,
    account_dir: AccountDir,
    aside: str,
    deadline: Deadline,
    done: ImportResult,
    later: list[str],
) -> None:
    """Import what is in one folder, each name once; `later` tells what is worth a further try.

    Raises what ends it all.
    """
    folder = store.open_set_aside(aside, order.account.uid)
    after = ""
    try:
        while names := _names_after(_order_until(order, deadline), folder, after):
            for after in names:
                one, since = _order_until(order, deadline), time.time()
                parsed = legacy_name(after, datetime.now(UTC))
                if parsed is None:
                    raise WorkerLost("the worker named what is no old snapshot")
                try:
                    if new := _import_one(one, account_dir, done, folder, after, parsed):
                        done.names.append(new)
                    client.ask(
                        order.account,
                        RemoveLegacy(after, since),
                        one.limits,
                        order.stopping,
                        folder=folder,
                    )
                except Cancelled:
                    raise
                except SourceError as error:
                    done.warnings.append(
                        f"{account_dir.user}: {store.path / aside / after} stays: {error}"
                    )
                except (Failure, OSError) as error:
                    later.append(f"{after}: {explain(error)}")
    finally:
        os.close(folder)


def _names_after(order: SnapshotOrder, folder: int, after: str) -> tuple[str, ...]:
    return client.ask(
        order.account, ListLegacy(after), order.limits, order.stopping, folder=folder
    ).names


def _order_until(order: SnapshotOrder, deadline: Deadline) -> SnapshotOrder:
    """Return the order with the time that is left. Raises TryLater where there is none."""
    if deadline.passed():
        raise TryLater("out of time: T3_BACKUP_TIMEOUT covers the whole account")
    return order.until(deadline)


def _import_one(
    order: SnapshotOrder,
    account_dir: AccountDir,
    done: ImportResult,
    folder: int,
    name: str,
    parsed: ParsedName,
) -> str | None:
    """Import one and return its new name; None where it is ours already.

    Raises SourceError where it is no good, Failure and OSError.
    """
    order = replace(order, when=parsed.when, label=parsed.label)
    deadline = Deadline.after(order.limits.seconds)
    with copied_files(account_dir) as files:
        copied = client.ask(
            order.account,
            CopyLegacy(name),
            order.limits,
            order.stopping,
            order.listen,
            file=files.stage(DATABASE_NAME).writer,
            folder=folder,
        )
        files.take_one(DATABASE_NAME, copied)
        [one] = settle_and_prove(order, files, deadline, None).values()
        content, judged = one.settled.content, verdict.judge_proof(one.copied, one.proven, None)
        if judged.verdict != "verified":
            raise SourceError(f"{judged.verdict}: {'; '.join(judged.reasons[:3])}")
        snapshots = done.listing.snapshots
        # A run that died between the sealing and the removal has left it in both places.
        for twin in snapshots:
            known = (twin.when, twin.label, twin.live.sha256)
            if known == (parsed.when, parsed.label, content.sha256):
                return None
        sequence = min([1, *(snapshot.sequence for snapshot in snapshots)]) - 1
        of_all, whole = {DATABASE_NAME: one}, Judged({DATABASE_NAME: judged})
        snapshot = make_manifest(order, done.listing, sequence, files, of_all, whole)
        account_dir.publish_snapshot(snapshot, {DATABASE_NAME: one.settled.file.name_as})
        done.listing = done.listing.with_snapshot(snapshot)
    return snapshot.name
