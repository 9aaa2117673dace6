"""Publish a second snapshot of alice's, remove the one that is there, or replace its manifest.

Usage: publish|remove|replace STORE. The word `begin` is written just before.
"""

import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from t3_backup.store.account_dir import AccountDir
from t3_backup.store.manifest import Manifest
from t3_backup.store.names import snapshot_name
from t3_backup.store.store import Store
from t3_backup.text import format_time


def _publish(account_dir: AccountDir, old: Manifest) -> None:
    when = datetime(2026, 11, 24, 14, tzinfo=UTC)
    name = snapshot_name(when, None, set())
    new = replace(old, sequence=2, name=name, taken_at=format_time(when))
    os.write(1, b"begin")
    with account_dir.stage_file() as staged_file:
        os.write(staged_file.writer, b"data")
        staged_file.settle()
        account_dir.publish_snapshot(new, {new.live.file: staged_file.name_as})


def main() -> None:
    what, path = sys.argv[1:]
    with Store.open(Path(path)) as store:
        account_dir = store.account_dir("alice")
        assert account_dir is not None
        [old] = account_dir.read_listing().snapshots
        if what == "publish":
            _publish(account_dir, old)
            return
        os.write(1, b"begin")
        if what == "remove":
            account_dir.remove_snapshot(old)
        else:
            account_dir.replace_manifest(replace(old, verdict="suspect"))


if __name__ == "__main__":
    main()
