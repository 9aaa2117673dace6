"""What must hold of a store, and of what is said, after a fault."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from demo.users import User
from support.account_folders import data_path, list_snapshots, strays_of
from support.host import Answer, Host
from t3_backup.history.verify import verify_snapshot
from t3_backup.store.account_dir import AccountDir
from t3_backup.store.listing import stem_of
from t3_backup.store.manifest import Manifest
from t3_backup.store.store import Store
from t3_backup.worker.limits import Limits


def hash_files(host: Host, user: User) -> dict[str, str]:
    """Every file of an account folder, by its SHA-256; but for the hashes of pages, which are a
    hint and nothing hangs on them."""
    paths = [path for path in list_files(host, user) if path.suffix != ".pages"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def list_files(host: Host, user: User) -> list[Path]:
    """All that lies in an account folder."""
    return sorted(host.account_dir(user).iterdir()) if host.account_dir(user).exists() else []


def find_leftovers(host: Host, user: User) -> set[str]:
    """What lies in an account folder and is no part of a snapshot."""
    found = {path.name for path in list_files(host, user)}
    whole = {
        path.stem
        for path in list_files(host, user)
        if {f"{path.stem}.json", f"{path.stem}.sqlite"} <= found
    }
    return found - {
        f"{stem}{ending}" for stem in whole for ending in (".json", ".sqlite", ".pages")
    }


def prove_snapshots(
    host: Host, user: User, *, known: frozenset[str] = frozenset()
) -> list[Manifest]:
    """The snapshots of a user; each is proven by its hash and, unless its name is `known`, by
    SQLite too."""
    limits = Limits(60, 60, 1 << 30, 0, lambda: 1 << 40)
    with Store.open(host.store) as store:
        account_dir = store.account_dir(user.name)
        if account_dir is None:
            return []
        with account_dir:
            found = list_snapshots(account_dir)
            assert strays_of(account_dir) == [], _explain_strays(account_dir)
            for snapshot in found:
                path = data_path(account_dir, snapshot)
                assert path.stat().st_size == snapshot.live.bytes
                assert hashlib.sha256(path.read_bytes()).hexdigest() == snapshot.live.sha256
                if snapshot.name not in known:
                    check = verify_snapshot(
                        account_dir, account_dir.read_listing(), snapshot, limits, threading.Event()
                    )
                    assert check.outcome == "verified", check
            return found


def _explain_strays(account_dir: AccountDir) -> str:
    """Why the manifest of each stray can't be read."""
    found = []
    for name in strays_of(account_dir):
        try:
            found.append(f"{name}: {account_dir.read_manifest(stem_of(name))}")
        except (OSError, ValueError) as error:
            found.append(f"{name}: {error!r}")
    return "; ".join(found)


def failure_line(answer: Answer, user: User, *words: str) -> str:
    """The one line that tells of the user's failure; it holds each of `words`, and nothing else is
    said but the sum."""
    # On such a disk the ledger may be refused as well, which is said.
    lines = [
        line
        for line in (answer.out + answer.err).splitlines()
        if "attempts.json can't be written" not in line
    ]
    assert len(lines) == 2, answer
    assert lines[0].startswith(f"WARN: backup FAILED for {user.name} ("), answer
    assert "Traceback" not in lines[0]
    for word in words:
        assert word in lines[0], answer
    return lines[0]


def stat_tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything beneath `folder`: what a change of any of it would change, access times aside."""
    return {
        str(path): (
            status.st_mode,
            status.st_uid,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        for path in [folder, *folder.rglob("*")]
        for status in [path.lstat()]
    }
