"""Hold the facts on which backups depend, as `gather` found them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from t3_backup.doctor.units import Systemd
from t3_backup.monitor import hooks
from t3_backup.monitor.attempts import Attempts
from t3_backup.restore.pending import PendingRestore
from t3_backup.store.catalog import Catalog
from t3_backup.store.identity import IdentityCheck
from t3_backup.store.manifest import Manifest, StoredDatabase
from t3_backup.t3.login_report import UNKNOWN, LoginReport
from t3_backup.worker.sources import Source


@dataclass(frozen=True)
class MapFacts:
    """The user map."""

    path: Path
    users: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # what is wrong with single lines
    problem: str = ""  # why it can't be read


@dataclass(frozen=True)
class AccountFacts:
    """An account of the map."""

    user: str
    home: Path | None = None  # canonical, where a database was found
    home_device: str = ""  # of the databases' mount, MAJOR:MINOR; empty: it isn't known
    source: Source | None = None  # the database and its -wal; None where there is none
    problem: str = ""  # why it can't be backed up
    # names of databases that are not copied, or paths where T3 has them open elsewhere
    uncovered: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()  # why they are not, or why that can't be told; what to do
    warnings: tuple[str, ...] = ()  # what somebody should know of what is open
    unlisted: tuple[str, ...] = ()  # and of what else is not, and not known to come again
    login: LoginReport = UNKNOWN  # what t3-autoupdate says of it


@dataclass(frozen=True)
class AccountDirFacts:
    """An account folder, and what lies beside it."""

    user: str
    path: Path
    snapshots: tuple[Manifest, ...] = ()
    lost: tuple[StoredDatabase, ...] = ()  # images whose files are gone
    catalog: Catalog = field(default_factory=Catalog)
    strays: tuple[str, ...] = ()
    problem: str = ""  # why it can't be used
    old: int | None = None  # how many old snapshots are in it, where it is the user's own
    aside: tuple[Path, ...] = ()  # folders that wait to be taken over
    leftovers: tuple[Path, ...] = ()  # and those with what could not be


@dataclass(frozen=True)
class StoreFacts:
    """The store and its disk.

    Where there is no store, those of the folder that it would be made in.
    """

    path: Path
    real: Path  # canonical
    exists: bool
    kind: str  # of the file system, as mount(8) has it
    read_only: bool
    free_bytes: int
    total_bytes: int
    device: str  # of its mount, MAJOR:MINOR
    problem: str = ""  # why it can't be used
    foreign: bool = False  # it is another's, and we are not root
    account_dirs: tuple[AccountDirFacts, ...] = ()
    restores: tuple[PendingRestore, ...] = ()  # that have not ended
    # names of snapshots that were sealed and are not there, by user
    vanished: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attempts: Attempts = field(default_factory=dict)  # what the last runs came to
    ledger_problem: str = ""  # why these can't be read
    identity: IdentityCheck | None = None  # None: it was not looked at


@dataclass(frozen=True)
class Libraries:
    """The libraries in use. A problem is empty where there is none."""

    apsw: str
    sqlite: str
    extension: str  # problem
    seccomp: str  # problem
    systemd: str  # problem
    prometheus: str = ""  # problem


@dataclass(frozen=True)
class TextfileFacts:
    """The folder of the metrics."""

    real: Path  # canonical
    problem: str  # why root, without its power over files, can't write there


@dataclass(frozen=True)
class Facts:
    """All that the doctor judges."""

    now: datetime
    is_root: bool
    map: MapFacts | None  # None for users who are not root: their own account alone counts
    accounts: tuple[AccountFacts, ...]
    store: StoreFacts
    log_folder: Path | None  # canonical; None where it is not there
    libraries: Libraries
    systemd: Systemd
    textfiles: TextfileFacts | None = None  # None: there are no metrics
    hooks: hooks.Found | None = None  # None for users who are not root
