"""Check what stands in the way of good backups on this machine, and say what to do about it.

Pure: facts in, findings out. Only a failed check makes the command fail: without mending it,
backups are not made, or are none. A warning wants a look; a note is there to be known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from t3_backup.doctor import unit_checks
from t3_backup.doctor.facts import AccountDirFacts, AccountFacts, Facts, Libraries, StoreFacts
from t3_backup.doctor.finding import Finding
from t3_backup.monitor import health
from t3_backup.restore.pending import PendingRestore
from t3_backup.settings import DEFAULT_LOG, Settings
from t3_backup.store.names import is_legacy
from t3_backup.system.disk import reserve_of
from t3_backup.t3 import databases
from t3_backup.text import format_age, format_size

TESTED = ("ext4", "xfs", "btrfs")
_IN_MEMORY = ("tmpfs", "ramfs")
_REMOTE = re.compile(
    r"nfs\d?|cifs|smb3|smbfs|9p|ceph|afs|glusterfs|fuse\.(sshfs|glusterfs|ceph.*|rclone|s3fs)"
)


def check_machine(facts: Facts, settings: Settings) -> list[Finding]:
    """Check everything, in the order in which things depend on each other."""
    snapshots = {account_dir.user: account_dir for account_dir in facts.store.account_dirs}
    return [
        *_rights(facts, settings),
        *_map(facts),
        *(
            finding
            for account in facts.accounts
            for finding in _account(account, snapshots.get(account.user))
        ),
        *_store(facts, settings),
        *(
            finding
            for account_dir in facts.store.account_dirs
            for finding in _account_dir(account_dir)
        ),
        *(_restore(restore) for restore in facts.store.restores),
        *_newest(facts),
        *_log(facts, settings),
        *_metrics(facts, settings),
        *_hooks(facts),
        *_libraries(facts.libraries),
        *unit_checks.check_units(facts, settings),
    ]


def _rights(facts: Facts, settings: Settings) -> Iterator[Finding]:
    if not facts.is_root:
        yield Finding(
            "note",
            "rights",
            f"only your own account and what you may see were looked at; for {settings.map} and the others: "
            "sudo t3-backup-state doctor",
        )


def _map(facts: Facts) -> Iterator[Finding]:
    if (known := facts.map) is None:
        return
    for warning in known.warnings:
        yield Finding("warn", "map", f"{warning}; mend the line")
    if known.problem:
        yield Finding("fail", "map", known.problem)
    elif not known.users and known.warnings:
        yield Finding("fail", "map", f"{known.path}: no line names an account; mend it")
    elif not known.users:
        yield Finding(
            "warn",
            "map",
            f"{known.path} names no account: nothing is backed up; add lines authentik=os_user",
        )
    else:
        yield Finding("ok", "map", f"{known.path} names {len(known.users)} accounts")


def _account(account: AccountFacts, account_dir: AccountDirFacts | None) -> Iterator[Finding]:
    name = f"account {account.user}"
    taken = len(account_dir.snapshots) if account_dir else 0
    if account.uncovered:
        yield Finding("fail", name, databases.explain(account.uncovered))
    if account.problem:
        yield Finding("fail", name, account.problem)
    elif account.source is not None:
        yield Finding(
            "ok",
            name,
            f"database of {format_size(account.source.bytes)}, -wal {format_size(account.source.wal_bytes)}",
        )
    elif taken:
        yield Finding(
            "fail",
            name,
            f"no database, but {taken} snapshots of it: was it deleted? restore one, or take the account out of the map",
        )
    elif not account.uncovered:
        yield Finding(
            "note", name, "database: none; it is skipped until its T3 server has made one"
        )


def _store(facts: Facts, settings: Settings) -> Iterator[Finding]:
    store = facts.store
    if store.foreign:
        yield Finding(
            "note",
            "store",
            f"{store.path} belongs to another user; to check it: sudo t3-backup-state doctor",
        )
    elif not store.exists:
        yield Finding("warn", "store", store.problem)
    elif store.problem:
        yield Finding("fail", "store", store.problem)
    else:
        owner = "root" if facts.is_root else "you"
        yield Finding(
            "ok",
            "store",
            f"{store.path} belongs to {owner} alone; {len(store.account_dirs)} accounts have snapshots",
        )
    if store.ledger_problem:
        yield Finding("warn", "ledger", store.ledger_problem)
    yield _file_system(store)
    yield _space(facts, settings)
    yield from _disk(facts)


def _file_system(store: StoreFacts) -> Finding:
    name = "file system"
    if store.read_only:
        return Finding(
            "fail", name, f"the store is on {store.kind}, mounted read-only; mount it read-write"
        )
    if store.kind in _IN_MEMORY:
        return Finding(
            "fail",
            name,
            f"the store is on {store.kind}, in memory: nothing outlives a restart; choose another (T3_BACKUP_DEST)",
        )
    if _REMOTE.fullmatch(store.kind):
        return Finding(
            "fail",
            name,
            f"the store is on {store.kind}, not a local disk; choose ext4, xfs or btrfs (T3_BACKUP_DEST)",
        )
    if store.kind not in TESTED:
        return Finding(
            "warn",
            name,
            f"the store is on {store.kind}, which is not tested: it must support leases (fcntl F_SETLEASE) and should support "
            "O_TMPFILE; ext4, xfs and btrfs do",
        )
    return Finding("ok", name, f"the store is on {store.kind}, which supports leases and O_TMPFILE")


def _space(facts: Facts, settings: Settings) -> Finding:
    """Check the room: a run copies account after account, and the oldest of each goes after its newest has come."""
    sources = [
        account.source.bytes + account.source.wal_bytes
        for account in facts.accounts
        if account.source is not None
    ]
    reserve = reserve_of(settings.reserve, facts.store.total_bytes)
    free = facts.store.free_bytes - reserve
    free_text, needed_text = format_size(facts.store.free_bytes), format_size(sum(sources))
    found = (
        f"{free_text} free; the next run needs {needed_text}, and {format_size(reserve)} stay free"
    )
    mend = "free some space, or lower T3_BACKUP_KEEP"
    if free < max(sources, default=0):
        return Finding("fail", "space", f"{found}: too little for the largest database; {mend}")
    if free < sum(sources):
        return Finding(
            "warn", "space", f"{found}: enough only if pruning frees space in between; {mend}"
        )
    return Finding("ok", "space", found)


def _disk(facts: Facts) -> Iterator[Finding]:
    homes = [account for account in facts.accounts if account.home_device is not None]
    shared = [account.user for account in homes if account.home_device == facts.store.device]
    advice = "copy the store elsewhere, too"
    if shared:
        who = "every home" if len(shared) == len(homes) else f"the homes of {_names(shared)}"
        yield Finding(
            "note",
            "disk",
            f"the store is on the same file system as {who}: if that disk fails, both are lost; {advice}",
        )
    elif homes:
        yield Finding(
            "ok",
            "disk",
            f"store and homes are on different file systems; if these are on one disk: {advice}",
        )


def _account_dir(account_dir: AccountDirFacts) -> Iterator[Finding]:
    name = f"shelf {account_dir.user}"
    if account_dir.problem:
        yield Finding("fail", name, account_dir.problem)
    if account_dir.old is not None:
        yield Finding(
            "warn",
            name,
            f"{account_dir.path} is the user's own, with {account_dir.old} snapshots that they can change; "
            f"take them over: t3-backup-state import-legacy {account_dir.user}",
        )
    for path in account_dir.aside:
        found = f"{path} holds old snapshots that are not taken over yet"
        yield Finding(
            "warn",
            name,
            f"{found}; take them over: t3-backup-state import-legacy {account_dir.user}",
        )
    for path in account_dir.leftovers:
        yield Finding(
            "warn",
            name,
            f"{path} holds files that could not be taken over; look at them, then remove the folder",
        )
    old = [stray for stray in account_dir.strays if is_legacy(stray)]
    lost = [stray for stray in account_dir.strays if not is_legacy(stray)]
    if old:
        yield Finding(
            "note",
            name,
            f"not counted: files of an earlier script in a folder of root's: {_names(old)}; move them away",
        )
    if lost:
        yield Finding(
            "warn",
            name,
            f"not counted: no valid manifest: {_names(lost)}; bring their .json back, or move them away",
        )
    waiting = [snapshot for snapshot in account_dir.snapshots if snapshot.holds]
    if waiting:
        what = _names(
            [
                f"{snapshot.name} ({snapshot.verdict}: {'; '.join(snapshot.reasons)})"
                for snapshot in waiting
            ]
        )
        yield Finding(
            "warn",
            name,
            f"nothing is pruned: {what}; look at it, then: t3-backup-state accept {account_dir.user}",
        )


def _restore(restore: PendingRestore) -> Finding:
    """Tell of a restore that has not ended: until somebody ends it, a server may not start.

    One that runs is well.
    """
    return Finding("warn" if restore.running else "fail", f"restore {restore.user}", restore.text)


def _newest(facts: Facts) -> Iterator[Finding]:
    """Judge when each account's database was last known to be safe: the one thing that counts on the day it is wanted."""
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
            yield Finding(
                "warn",
                f"snapshots {user}",
                f"{len(account_dir.snapshots)} snapshots of an account that is not in {facts.map.path}: "
                "no new ones are made, none is pruned",
            )


def _freshness(account: AccountFacts, account_dir: AccountDirFacts | None, facts: Facts) -> Finding:
    user = account.user
    name = f"snapshots {user}"
    now = f"now: t3-backup-state run --user {user}" if facts.is_root else "now: t3-backup-state run"
    tried = facts.store.attempts.get(user, ())
    fresh = health.judge_freshness(account_dir.snapshots if account_dir else (), tried, facts.now)
    if fresh.uncovered:
        if account.uncovered:
            return Finding("fail", name, databases.explain(fresh.uncovered))
        told = f"the last run that checked found that {databases.summary(fresh.uncovered)}"
        return Finding("fail", name, f"{told}; they are gone since; back up {now}")
    ahead = ""
    if fresh.ahead:
        ahead = f"the newest verified snapshot is dated in the future ({fresh.ahead[0].name}); was the clock set back?"
    if not fresh.good:
        return Finding("warn", name, ahead or f"no verified snapshot; back up {now}")
    newest = fresh.good[0]
    found = f"the newest verified snapshot is {format_age((facts.now - newest.when).total_seconds())} old ({newest.name})"
    if fresh.confirmed:
        found += f", and the database was unchanged {format_age((facts.now - fresh.confirmed).total_seconds())} ago"
    if fresh.is_old(facts.now):
        return Finding(
            "fail", name, f"{found}; find out why there is no newer one, and back up {now}"
        )
    return Finding("warn", name, ahead) if ahead else Finding("ok", name, found)


def _log(facts: Facts, settings: Settings) -> Iterator[Finding]:
    if facts.is_root and facts.log_folder is None and settings.log != DEFAULT_LOG:
        folder = settings.log.parent
        yield Finding(
            "fail",
            "log",
            f"no folder {folder}: each run ends with exit code 1; mkdir {folder} (or see T3_BACKUP_LOG)",
        )


def _metrics(facts: Facts, settings: Settings) -> Iterator[Finding]:
    if (found := facts.textfiles) is None:
        return
    if found.problem:
        yield Finding(
            "fail",
            "metrics",
            f"they can't be written to {settings.textfiles}: {found.problem}; each run ends with exit code 1; mend it, or name "
            "another folder or none (T3_BACKUP_TEXTFILE_DIR)",
        )
    elif facts.libraries.prometheus:
        yield Finding(
            "note",
            "metrics",
            "not written, python3-prometheus-client is not there; apt install python3-prometheus-client",
        )
    else:
        yield Finding("ok", "metrics", f"written to {settings.textfiles}")


def _hooks(facts: Facts) -> Iterator[Finding]:
    if (found := facts.hooks) is None:
        return
    if found.passed_over:
        yield Finding(
            "warn", "hooks", f"in {found.folder} are ignored: {', '.join(found.passed_over)}"
        )
    if found.hooks:
        yield Finding(
            "ok",
            "hooks",
            f"called when a run fails: {', '.join(found.hooks)}; try them: t3-backup-state hooks",
        )


def _libraries(found: Libraries) -> Iterator[Finding]:
    if has_wal_reset_bug(found.sqlite):
        yield Finding(
            "warn",
            "sqlite",
            f"{found.sqlite} (apsw {found.apsw}) has the WAL-reset bug: two connections that write and checkpoint at once can "
            "damage a database. We only read, and checkpoint nothing; the SQLite of each T3 server is what matters: "
            "3.51.3, 3.50.7 or 3.44.6 has it mended",
        )
    else:
        yield Finding("ok", "sqlite", f"{found.sqlite} (apsw {found.apsw})")
    if found.extension:
        yield Finding("fail", "extension", f"{found.extension}; use Debian's python3-apsw")
    else:
        yield Finding("ok", "extension", "the VFS that writes the copies can be loaded")
    if found.seccomp:
        yield Finding("fail", "seccomp", f"{found.seccomp}; apt install python3-seccomp")
    else:
        yield Finding("ok", "seccomp", "workers can be confined")
    if found.systemd:
        yield Finding(
            "note",
            "python3-systemd",
            "not there: the journal gets lines without fields; apt install python3-systemd",
        )
    else:
        yield Finding("ok", "python3-systemd", "there")


def has_wal_reset_bug(version: str) -> bool:
    """Tell whether a SQLite of that version has the bug that sqlite.org/wal.html#walresetbug describes."""
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    mended = (
        number >= (3, 51, 3) or (3, 50, 7) <= number < (3, 51) or (3, 44, 6) <= number < (3, 45)
    )
    return number >= (3, 7, 0) and not mended


def _names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
