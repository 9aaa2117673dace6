"""Facts of a healthy machine, for the checks of the doctor."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from support.manifests import NOON, make_manifest
from t3_backup import settings
from t3_backup.doctor.facts import (
    AccountDirFacts,
    AccountFacts,
    Facts,
    Libraries,
    MapFacts,
    StoreFacts,
)
from t3_backup.doctor.units import Systemd
from t3_backup.worker.sources import Source

GIB = 1 << 30
VALUES = settings.load({}, {}, Path("/dev/null"))
ALICE = AccountFacts("alice", Path("/home/alice"), "8:2", Source(GIB, 1 << 20))
ACCOUNT_DIR = AccountDirFacts(
    "alice", Path("/var/backups/t3-state/alice"), (make_manifest(1, NOON - timedelta(hours=8)),)
)
STORE = StoreFacts(
    Path("/var/backups/t3-state"),
    Path("/var/backups/t3-state"),
    True,
    "ext4",
    False,
    100 * GIB,
    1000 * GIB,
    "8:1",
    account_dirs=(ACCOUNT_DIR,),
)
HEALTHY = Facts(
    now=NOON,
    is_root=True,
    map=MapFacts(Path("/etc/ttyd-user-map"), ("alice",)),
    accounts=(ALICE,),
    store=STORE,
    log_folder=Path("/var/log/t3-backup"),
    libraries=Libraries("3.51.3.0", "3.51.3", "", "", ""),
    systemd=Systemd(runs=False),
)
