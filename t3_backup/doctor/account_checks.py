"""Check each account: its database, its snapshots, a restore under way.

Pure: facts in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from t3_backup.doctor.facts import AccountDirFacts, AccountFacts, Facts
from t3_backup.doctor.finding import Finding, fail, note, ok, shorten, warn
from t3_backup.monitor import health
from t3_backup.monitor.attempts import Attempt
from t3_backup.monitor.collect import AccountView
from t3_backup.monitor.proofs import judge_proofs
from t3_backup.output.messages import missing_texts
from t3_backup.restore.pending import PendingRestore
from t3_backup.store.catalog import explain_loss
from t3_backup.store.names import is_legacy
from t3_backup.t3 import databases, unlisted
from t3_backup.text import format_age, format_size, quote
from t3_backup.worker.sources import Source


def check_databases(facts: Facts) -> Iterator[Finding]:
    """Check that the database of each account in the map can be backed up."""
    counts = {one.user: len(one.snapshots) for one in facts.store.account_dirs}
    for account in facts.accounts:
        yield from _database(account, counts.get(account.user, 0))


def _database(account: AccountFacts, snapshots: int) -> Iterator[Finding]:
    name = f"account {account.user}"
    for text in account.failures:
        yield fail(name, text)
    for text in account.warnings:
        yield warn(name, text)
    if account.problem:
        yield fail(name, account.problem)
    elif (source := account.source) is not None:
        yield from _sources(account.user, source)
    elif snapshots:
        mend = "was it deleted? restore one, or take the account out of the map"
        yield fail(name, f"no database, but {snapshots} snapshots of it: {mend}")
    elif not account.failures:
        yield note(name, "database: none; it is skipped until its T3 server has made one")
    if account.unlisted:
        yield note(f"files {account.user}", unlisted.explain(account.unlisted))


def _sources(user: str, source: Source) -> Iterator[Finding]:
    """Tell of the databases that were found; one that can't be copied fails by its name."""
    name = f"account {user}"
    for one in source.databases:
        if one.problem:
            remedy = databases.missing_remedy(user, one.file)
            shown = databases.shown_name(one.file)
            yield fail(name, f"{shown} can't be copied: {one.problem}; next: {remedy}")
    if not source.usable:
        if not source.databases:
            yield ok(name, f"database of {_sizes(source.bytes, source.wal_bytes)}")
        return
    sizes = [_sizes(one.bytes, one.wal_bytes) for one in source.usable]
    tell = note if any(one.obstacle for one in source.usable) else ok  # of which was warned
    if len(source.databases) == 1:
        yield tell(name, f"database of {sizes[0]}")
        return
    files = [databases.shown_name(one.file) for one in source.usable]
    told = [f"{file} of {size}" for file, size in zip(files, sizes, strict=True)]
    count = "1 database" if len(told) == 1 else f"{len(told)} databases"
    yield tell(name, f"{count}: {'; '.join(told)}")


def _sizes(size: int, wal_bytes: int) -> str:
    return f"{format_size(size)}, -wal {format_size(wal_bytes)}"


def check_logins(facts: Facts) -> Iterator[Finding]:
    """Tell of each account to which nobody can log in, as t3-autoupdate has found."""
    for account in facts.accounts:
        if trouble := account.login.trouble(account.user, facts.now):
            yield warn(f"login {account.user}", trouble)


def check_attempts(facts: Facts) -> Iterator[Finding]:
    """Tell of each account of which the last run has not saved all that there is."""
    account_dirs = {one.user: one for one in facts.store.account_dirs}
    for account in facts.accounts:
        tried, name = facts.store.attempts.get(account.user, ()), f"attempt {account.user}"
        view = _view(account.user, account_dirs.get(account.user), tried)
        fresh = health.judge_freshness(view, facts.now)
        if error := health.last_error(tried, fresh.last_good):
            yield warn(name, f"the last attempt failed, at {error.at}: {error.reason}")
        if tried and tried[-1].unsaved:
            yield warn(name, f"files next to the database were not saved: {tried[-1].unsaved}")


def check_account_dirs(facts: Facts) -> Iterator[Finding]:
    """Check what the store has of each account, and restores that have not ended."""
    for account_dir in facts.store.account_dirs:
        yield from _account_dir(account_dir)
    for user, names in facts.store.vanished.items():
        yield fail(f"shelf {user}", explain_loss(user, names))
    for restore in facts.store.restores:
        yield _restore(restore)


def _account_dir(account_dir: AccountDirFacts) -> Iterator[Finding]:
    name = f"shelf {account_dir.user}"
    take_over = f"take them over: t3-backup-state import-legacy {quote(account_dir.user)}"
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
    if account_dir.snapshots:
        for text in missing_texts(account_dir.snapshots[0]):
            yield fail(name, text)
    if holes := health.explain_holes(_view(account_dir.user, account_dir)):
        yield fail(name, holes)
    waiting = [
        f"{snapshot.name} ({snapshot.verdict}: {'; '.join(snapshot.reasons)})"
        for snapshot in account_dir.snapshots
        if snapshot.holds
    ]
    if waiting:
        mend = f"look at it, then: t3-backup-state accept {quote(account_dir.user)}"
        yield warn(name, f"nothing is pruned: {shorten(waiting)}; {mend}")


def check_proofs(facts: Facts) -> Iterator[Finding]:
    """Check how the last proofs of each account's snapshots ended, and when that was."""
    most = health.Thresholds().max_proof_age
    for account_dir in facts.store.account_dirs:
        name, proofs = (
            f"proofs {account_dir.user}",
            judge_proofs(_view(account_dir.user, account_dir)),
        )
        for fault in proofs.faults:
            yield fail(name, fault.text)
        for text in proofs.doubts(account_dir.user, facts.now, most):
            yield warn(name, text)


def _view(
    user: str, account_dir: AccountDirFacts | None, attempts: Sequence[Attempt] = ()
) -> AccountView:
    """Return what the store has of an account, as all who judge it look at it."""
    if account_dir is None:
        return AccountView(user, in_map=True, attempts=tuple(attempts))
    return AccountView(
        user,
        in_map=True,
        snapshots=account_dir.snapshots,
        attempts=tuple(attempts),
        lost=account_dir.lost,
        catalog=account_dir.catalog,
    )


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
    now = (
        f"now: t3-backup-state run --user {quote(user)}"
        if facts.is_root
        else "now: t3-backup-state run"
    )
    tried = facts.store.attempts.get(user, ())
    fresh = health.judge_freshness(_view(user, account_dir, tried), facts.now)
    if fresh.uncovered:
        if account.uncovered:
            return fail(name, databases.explain(fresh.uncovered))
        told = f"the last run that checked found that {databases.summary(fresh.uncovered)}"
        return fail(name, f"{told}; they are gone since; back up {now}")
    ahead = ""
    if fresh.ahead:
        first = "the newest verified snapshot is dated in the future"
        ahead = f"{first} ({fresh.ahead[0].name}); was the clock set back?"
    doubt = health.explain_doubt(account_dir.snapshots if account_dir else ())
    doubt = doubt and f"{doubt}; next: install a SQLite that can judge it, and back up {now}"
    if not fresh.good:
        return warn(name, ahead or doubt or f"no verified snapshot; back up {now}")
    newest = fresh.good[0]
    age = format_age((facts.now - newest.when).total_seconds())
    found = f"the newest verified snapshot is {age} old ({newest.name})"
    if fresh.confirmed:
        ago = format_age((facts.now - fresh.confirmed).total_seconds())
        found += f", and the database was unchanged {ago} ago"
    if fresh.is_old(facts.now):
        return fail(name, f"{found}; find out why there is no newer one, and back up {now}")
    late = ""
    if fresh.last_good is not None and facts.now - fresh.last_good > health.Thresholds().max_age:
        late = f"{found}, which status calls critical; back up {now}"
    troubles = "; ".join(filter(None, (ahead, late, doubt)))
    return warn(name, troubles) if troubles else ok(name, found)
