"""Gather the facts on which backups depend, for `checks` to judge.

Nothing is written and no lock is taken. A database is looked for as its owner, by a worker, as a
run does it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import apsw

from t3_backup import accounts
from t3_backup.accounts import Account
from t3_backup.backup.coverage import SourceListener
from t3_backup.doctor import units
from t3_backup.doctor.facts import (
    AccountDirFacts,
    AccountFacts,
    Facts,
    Libraries,
    MapFacts,
    StoreFacts,
    TextfileFacts,
)
from t3_backup.errors import Cancelled, Failure, SourceAbsent, SourceRefused, StoreError, explain
from t3_backup.monitor import collect, hooks, metrics, recorder
from t3_backup.restore import pending
from t3_backup.settings import Settings
from t3_backup.store.identity import check_identity
from t3_backup.store.known_stores import KnownStores
from t3_backup.store.losses import find_lost
from t3_backup.store.store import Store
from t3_backup.system import native
from t3_backup.system.proc_files import parse_mounts
from t3_backup.t3.base_dir import place_accounts
from t3_backup.t3.login_report import UNKNOWN, read_login
from t3_backup.text import utc_now
from t3_backup.worker import client
from t3_backup.worker.limits import LOOK_STALL, Limits
from t3_backup.worker.operations.backup import FindDatabase
from t3_backup.worker.operations.legacy import ListLegacy
from t3_backup.worker.sources import Source

_LOOK_S = 30  # for one worker that finds a file
# Whether a copy would fit is judged elsewhere.
_LIMITS = Limits(_LOOK_S, LOOK_STALL, 0, 0, lambda: 1 << 62)


def gather_facts(settings: Settings, stopping: threading.Event) -> Facts:
    """Gather all facts. Raises Cancelled once `stopping` is set."""
    is_root = os.geteuid() == 0
    known = _map(settings.map) if is_root else None
    users = known.users if known else (accounts.own().user,)
    return Facts(
        now=utc_now(),
        is_root=is_root,
        map=known,
        accounts=tuple(_account(user, settings, stopping) for user in users),
        store=replace(
            _store(settings.dest, stopping),
            identity=check_identity(settings.dest, KnownStores.own(), users),
        ),
        log_folder=_real(settings.log.parent) if os.path.isdir(settings.log.parent) else None,
        libraries=_libraries(),
        systemd=units.read_units(),
        textfiles=_textfiles(settings),
        hooks=hooks.find_hooks(settings.hooks) if is_root else None,
    )


def _textfiles(settings: Settings) -> TextfileFacts | None:
    folder = recorder.metrics_folder(settings, None)
    if folder is None:
        return None
    return TextfileFacts(_real(folder), metrics.why_not_writable(folder))


def _map(path: Path) -> MapFacts:
    try:
        known = accounts.read_map(path)
    except Failure as error:
        return MapFacts(path, problem=str(error))
    return MapFacts(path, known.users, known.warnings)


def _account(user: str, settings: Settings, stopping: threading.Event) -> AccountFacts:
    home = source = None
    problem = ""
    heard = SourceListener(user, settings.ignore)
    try:
        named = dict(settings.base_dirs)
        [account] = place_accounts([accounts.find(user)], named, lambda _: None)
        home = account.home
        source = client.ask(account, FindDatabase(), _LIMITS, stopping, heard)
        home = _find_home(account, source)
    except SourceAbsent:
        pass
    except Cancelled:
        raise
    except (Failure, OSError) as error:
        problem = explain(error)
    return AccountFacts(
        user,
        home,
        source.device if source else "",
        source,
        problem,
        uncovered=heard.uncovered,
        failures=heard.failures,
        warnings=(*heard.warnings, *heard.obstacles),
        unlisted=heard.unlisted,
        login=UNKNOWN if settings.logins is None else read_login(settings.logins, user),
    )


def _find_home(account: Account, source: Source) -> Path:
    """Tell where the home is, or what of T3's is not there, by what the account's worker said.

    Without a symlink. Root asks nothing of a path in a home.
    """
    base_dir = Path(source.base_dir)
    return base_dir.parent if account.base_dir is None else base_dir


def _store(dest: Path, stopping: threading.Event) -> StoreFacts:
    place = next(path for path in (dest, *dest.parents) if os.path.exists(path))
    status, room = place.stat(), os.statvfs(place)
    kind, device = _mount(place)
    found = StoreFacts(
        path=dest,
        real=_real(dest),
        exists=os.path.lexists(dest),
        kind=kind,
        read_only=bool(room.f_flag & os.ST_RDONLY),
        free_bytes=room.f_bavail * room.f_frsize,
        total_bytes=room.f_blocks * room.f_frsize,
        device=device,
        foreign=place == dest and os.geteuid() not in (0, status.st_uid),
    )
    try:
        with Store.open(dest) as store:
            beside = {name.partition("+")[0] for name in os.listdir(store.fd) if "+" in name}
            users = sorted({*store.users(), *filter(None, map(accounts.user_of_folder, beside))})
            problems: list[str] = []
            return replace(
                found,
                account_dirs=tuple(_account_dir(store, user, stopping) for user in users),
                attempts=collect.attempts_of(store, problems.append),
                restores=tuple(pending.find_pending(store)),
                vanished=_vanished(store),
                ledger_problem="; ".join(problems),
            )
    except (StoreError, OSError) as error:
        return replace(found, problem=explain(error))


def _vanished(store: Store) -> dict[str, tuple[str, ...]]:
    """Find what was sealed and is not there; a folder that can't be read is told elsewhere."""
    found: dict[str, tuple[str, ...]] = {}
    for user in store.users_with_catalog():
        with contextlib.suppress(StoreError, OSError):
            if names := find_lost(store, user, None):
                found[user] = names
    return found


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _mount(path: Path) -> tuple[str, str]:
    """Find the type of the file system that `path` is on, and its device, as its mount has them.

    That is in proc(5); on btrfs stat(2) has other devices.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    finally:
        os.close(fd)
    mount = next(line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:"))
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return kind_of(mounts, mount), parse_mounts(mounts).get(mount, "")


def kind_of(mounts: str, mount: str) -> str:
    """Find the type of the mount with this id in the text of /proc/self/mountinfo."""
    for line in mounts.splitlines():
        if line.split(" ", 1)[0] == mount:
            return line.partition(" - ")[2].split(" ")[0]
    return "unknown"


def _account_dir(store: Store, user: str, stopping: threading.Event) -> AccountDirFacts:
    found = AccountDirFacts(
        user,
        store.path / accounts.folder_name(user),
        aside=tuple(store.path / name for name in store.list_set_aside(user)),
        leftovers=tuple(store.path / name for name in store.list_leftovers(user)),
    )
    try:
        if (account_dir := store.account_dir(user)) is None:
            return found
        with account_dir:
            listing = account_dir.read_listing()
            return replace(
                found,
                snapshots=listing.snapshots,
                lost=listing.lost_images,
                catalog=account_dir.read_catalog(),
                strays=listing.strays,
            )
    except (StoreError, OSError) as error:
        found = replace(found, problem=explain(error))
    try:
        return _given_away(store, accounts.find(user), found, stopping)
    except Cancelled:
        raise
    except (Failure, OSError):  # its user is gone, or can't be asked
        return found


def _given_away(
    store: Store, account: Account, found: AccountDirFacts, stopping: threading.Event
) -> AccountDirFacts:
    """Add how many old snapshots are in the folder, where it is the user's own."""
    if not store.is_given_away(account.user, account.uid):
        return found
    folder = store.open_set_aside(account.user, account.uid)
    try:
        names = client.ask(account, ListLegacy(), _LIMITS, stopping, folder=folder).names
    except SourceRefused:
        why = f"{found.path} is ours, but was given to its user"
        mend = f"if no old script does it: chown root: {found.path}"
        return replace(found, problem=f"{why}; {mend}")
    finally:
        os.close(folder)
    return replace(found, old=len(names), problem="")


def _libraries() -> Libraries:
    extension = ""
    try:
        with closing(apsw.Connection(":memory:")) as connection:
            native.register_vfs(connection)
    except (apsw.Error, OSError) as error:
        extension = str(error)
    return Libraries(
        apsw=apsw.apswversion(),
        sqlite=apsw.sqlitelibversion(),
        extension=extension,
        seccomp=_importing("seccomp"),
        systemd=_importing("systemd.journal"),
        prometheus=_importing("prometheus_client"),
    )


def _importing(module: str) -> str:
    """Say why a module can't be imported; empty where it can."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return ""
