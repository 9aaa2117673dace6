"""Check that the store is private, fit for snapshots and large enough.

Pure: facts in, findings out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from t3_backup.doctor.facts import Facts, StoreFacts
from t3_backup.doctor.finding import Finding, fail, note, ok, shorten, warn
from t3_backup.settings import Settings
from t3_backup.system.disk import reserve_of
from t3_backup.text import format_size, quote

TESTED = ("ext4", "xfs", "btrfs")
_IN_MEMORY = ("tmpfs", "ramfs")
_REMOTE = re.compile(
    r"nfs\d?|cifs|smb3|smbfs|9p|ceph|afs|glusterfs|fuse\.(sshfs|glusterfs|ceph.*|rclone|s3fs)"
)


def check_store(facts: Facts, settings: Settings) -> Iterator[Finding]:
    """Check the store, its file system and its disk."""
    store = facts.store
    if store.foreign:
        text = "belongs to another user; to check it: sudo t3-backup-state doctor"
        yield note("store", f"{store.path} {text}")
    elif not store.exists:
        yield warn("store", store.problem)
    elif store.problem:
        yield fail("store", store.problem)
    else:
        owned = f"{store.path} belongs to {'root' if facts.is_root else 'you'} alone"
        yield ok("store", f"{owned}; {len(store.account_dirs)} accounts have snapshots")
    yield from _identity(store)
    if store.ledger_problem:
        yield warn("ledger", store.ledger_problem)
    yield _file_system(store)
    yield _space(facts, settings)
    yield from _disk(facts)


def _identity(store: StoreFacts) -> Iterator[Finding]:
    """Check that another store, or none, would be noticed in its place."""
    check = store.identity
    if check is None or store.foreign:
        return
    if check.problem:
        yield fail("identity", check.problem)
    elif check.is_known:
        yield ok("identity", f"{store.path} is the store that is remembered")
    elif store.exists and not store.problem:
        found = "it is not remembered which store this is, and another one would not be noticed"
        init = f"t3-backup-state init --dest {quote(str(store.path))}"
        yield warn("identity", f"{found}, nor a disk that is not mounted; {init}")


def _file_system(store: StoreFacts) -> Finding:
    name, found = "file system", f"the store is on {store.kind}"
    if store.read_only:
        return fail(name, f"{found}, mounted read-only; mount it read-write")
    if store.kind in _IN_MEMORY:
        why = "in memory: nothing outlives a restart; choose another (T3_BACKUP_DEST)"
        return fail(name, f"{found}, {why}")
    if _REMOTE.fullmatch(store.kind):
        why = "not a local disk; choose ext4, xfs or btrfs (T3_BACKUP_DEST)"
        return fail(name, f"{found}, {why}")
    if store.kind not in TESTED:
        must = "it must support leases (fcntl F_SETLEASE) and should support O_TMPFILE"
        return warn(name, f"{found}, which is not tested: {must}; ext4, xfs and btrfs do")
    return ok(name, f"{found}, which supports leases and O_TMPFILE")


def _space(facts: Facts, settings: Settings) -> Finding:
    """Check that a run fits: each account is pruned right after it was copied."""
    sources = [one.source for one in facts.accounts if one.source is not None]
    sizes = [source.bytes + source.wal_bytes for source in sources]
    reserve = reserve_of(settings.reserve, facts.store.total_bytes)
    free = facts.store.free_bytes - reserve
    needs = f"the next run needs {format_size(sum(sizes))}, and {format_size(reserve)} stay free"
    found = f"{format_size(facts.store.free_bytes)} free; {needs}"
    mend = "free some space, or lower T3_BACKUP_KEEP"
    if free < max(sizes, default=0):
        return fail("space", f"{found}: too little for the largest database; {mend}")
    if free < sum(sizes):
        return warn("space", f"{found}: enough only if pruning frees space in between; {mend}")
    return ok("space", found)


def _disk(facts: Facts) -> Iterator[Finding]:
    homes = [account for account in facts.accounts if account.home_device]
    shared = [account.user for account in homes if account.home_device == facts.store.device]
    advice = "copy the store elsewhere, too"
    if shared:
        who = "every home" if len(shared) == len(homes) else f"the homes of {shorten(shared)}"
        found = f"the store is on the same file system as {who}"
        yield note("disk", f"{found}: if that disk fails, both are lost; {advice}")
    elif homes:
        found = "store and homes are on different file systems; if these are on one disk"
        yield ok("disk", f"{found}: {advice}")
