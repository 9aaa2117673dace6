"""Check each account: its database, its snapshots, a restore under way.

Pure: facts in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator

from t3_backup.doctor.facts import AccountDirFacts, AccountFacts, Facts
from t3_backup.doctor.finding import Finding, fail, note, ok, shorten, warn
from t3_backup.monitor import health
from t3_backup.restore.pending import PendingRestore
from t3_backup.store.names import is_legacy
from t3_backup.t3 import databases, unlisted
from t3_backup.text import format_age, format_size


def check_databases(facts: Facts) -> Iterator[Finding]:
    """Check that the database of each account in the map can be backed up."""
    counts = {one.user: len(one.snapshots) for one in facts.store.account_dirs}
    for account in facts.accounts:
        yield from _database(account, counts.get(account.user, 0))


def _database(account: AccountFacts, snapshots: int) -> Iterator[Finding]:
    name = f"account {account.user}"
    if account.uncovered:
        yield fail(name, databases.explain(account.uncovered))
    if account.problem:
        yield fail(name, account.problem)
    elif (source := account.source) is not None:
        sizes = f"{format_size(source.bytes)}, -wal {format_size(source.wal_bytes)}"
        yield ok(name, f"database of {sizes}")
    elif snapshots:
        mend = "was it deleted? restore one, or take the account out of the map"
        yield fail(name, f"no database, but {snapshots} snapshots of it: {mend}")
    elif not account.uncovered:
        yield note(name, "database: none; it is skipped until its T3 server has made one")
    if account.unlisted:
        yield note(f"files {account.user}", unlisted.explain(account.unlisted))


def check_account_dirs(facts: Facts) -> Iterator[Finding]:
    """Check what the store has of each account, and restores that have not ended."""
    for account_dir in facts.store.account_dirs:
        yield from _account_dir(account_dir)
    for restore in facts.store.restores:
        yield _restore(restore)


def _account_dir(account_dir: AccountDirFacts) -> Iterator[Finding]:
    name = f"shelf {account_dir.user}"
    take_over = f"take them over: t3-backup-state import-legacy {account_dir.user}"
    if account_dir.problem:
        yield fail(name, account_dir.problem)
    if account_dir.old is not None:
        found = f"the user's own, with {account_dir.old} snapshots that they can change"
        yield warn(name, f"{account_dir.path} is {found}; {take_over}")
    for path in account_dir.aside:
        yield warn(name, f"{path} holds old snapshots that are not taken over yet; {take_over}")
    for path in account_dir.leftovers:
        mend = "look at them, then remove the folder"
        yield warn(name, f"{path} holds files that could not be taken over; {mend}")
    old = [stray for stray in account_dir.strays if is_legacy(stray)]
    lost = [stray for stray in account_dir.strays if not is_legacy(stray)]
    if old:
        found = f"files of an earlier script in a folder of root's: {shorten(old)}"
        yield note(name, f"not counted: {found}; move them away")
    if lost:
        mend = "bring their .json back, or move them away"
        yield warn(name, f"not counted: no valid manifest: {shorten(lost)}; {mend}")
    waiting = [
        f"{snapshot.name} ({snapshot.verdict}: {'; '.join(snapshot.reasons)})"
        for snapshot in account_dir.snapshots
        if snapshot.holds
    ]
    if waiting:
        mend = f"look at it, then: t3-backup-state accept {account_dir.user}"
        yield warn(name, f"nothing is pruned: {shorten(waiting)}; {mend}")


def _restore(restore: PendingRestore) -> Finding:
    """Tell of a restore that has not ended: a server may not start until then."""
    name = f"restore {restore.user}"
    return warn(name, restore.text) if restore.running else fail(name, restore.text)


def check_freshness(facts: Facts) -> Iterator[Finding]:
    """Check when each account's database was last known to be safe."""
    if facts.store.foreign:
        return
    account_dirs = {account_dir.user: account_dir for account_dir in facts.store.account_dirs}
    for account in facts.accounts:
        account_dir = account_dirs.get(account.user)
        if account.source is not None or (account_dir and account_dir.snapshots):
            yield _freshness(account, account_dir, facts)
    if facts.map is None or facts.map.problem:
        return
    for user, account_dir in account_dirs.items():
        if user not in facts.map.users and account_dir.snapshots:
            found = f"snapshots of an account that is not in {facts.map.path}"
            text = f"{len(account_dir.snapshots)} {found}: no new ones are made, none is pruned"
            yield warn(f"snapshots {user}", text)


def _freshness(account: AccountFacts, account_dir: AccountDirFacts | None, facts: Facts) -> Finding:
    user = account.user
    name = f"snapshots {user}"
    now = f"now: t3-backup-state run --user {user}" if facts.is_root else "now: t3-backup-state run"
    tried = facts.store.attempts.get(user, ())
    fresh = health.judge_freshness(account_dir.snapshots if account_dir else (), tried, facts.now)
    if fresh.uncovered:
        if account.uncovered:
            return fail(name, databases.explain(fresh.uncovered))
        told = f"the last run that checked found that {databases.summary(fresh.uncovered)}"
        return fail(name, f"{told}; they are gone since; back up {now}")
    ahead = ""
    if fresh.ahead:
        first = "the newest verified snapshot is dated in the future"
        ahead = f"{first} ({fresh.ahead[0].name}); was the clock set back?"
    if not fresh.good:
        return warn(name, ahead or f"no verified snapshot; back up {now}")
    newest = fresh.good[0]
    age = format_age((facts.now - newest.when).total_seconds())
    found = f"the newest verified snapshot is {age} old ({newest.name})"
    if fresh.confirmed:
        ago = format_age((facts.now - fresh.confirmed).total_seconds())
        found += f", and the database was unchanged {ago} ago"
    if fresh.is_old(facts.now):
        return fail(name, f"{found}; find out why there is no newer one, and back up {now}")
    return warn(name, ahead) if ahead else ok(name, found)
