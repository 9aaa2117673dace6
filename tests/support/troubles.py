"""What can be wrong with the backups of a machine, by name: how it comes to be, by real means, and
how each channel names it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from demo.users import User, throwaway_user
from support import programs
from support.channels import Told
from support.databases import commit_row, put_database
from support.filesystems import disk, fill_disk, mounted, never_answering
from support.host import Host, succeeded
from support.live_database import paused_restore, run_as, run_sql
from support.manifests import rewrite_manifest
from support.t3_server import serving, t3_program
from support.users import user_name
from t3_backup.t3.databases import MOST
from t3_backup.t3.login_report import Login, write_login
from t3_backup.text import format_time, utc_now

CRITICAL, WARNING = True, False


@dataclass(frozen=True)
class Scene:
    """A host where all was well a moment ago: an account with two snapshots."""

    host: Host
    user: User
    stack: ExitStack  # what is to be undone at the end

    @property
    def folder(self) -> Path:
        """That of the account, in the store."""
        return self.host.account_dir(self.user)

    @property
    def newest(self) -> Path:
        """The data of the newest snapshot."""
        return self.host.snapshots(self.user)[-1]

    def set(self, **settings: str) -> None:
        """Change settings, for every command from now on."""
        self.host.environ |= {f"T3_BACKUP_{name}": value for name, value in settings.items()}

    def give(self, *paths: Path) -> None:
        """Make files the user's."""
        for path in paths:
            self.user.give(path)


@dataclass(frozen=True)
class Trouble:
    """One thing that can be wrong."""

    name: str
    make: Callable[[Scene], object]
    told: Told


# --- the store and what is in it


def rot(path: Path) -> None:
    """Four bytes of a sealed image, as a failing disk changes them."""
    with path.open("r+b") as file:
        file.seek(8200)
        before = file.read(4)
        file.seek(8200)
        file.write(bytes(byte ^ 0x55 for byte in before))


def rot_oldest(scene: Scene) -> None:
    rot(scene.host.snapshots(scene.user)[0])


def rot_newest(scene: Scene) -> None:
    """The database is still what it holds, so the next run takes it again."""
    rot(scene.newest)


def remove_data(scene: Scene) -> None:
    scene.newest.unlink()


def remove_manifest(scene: Scene) -> None:
    scene.newest.with_suffix(".json").unlink()


def remove_account_folder(scene: Scene) -> None:
    shutil.rmtree(scene.folder)


def unmount(scene: Scene) -> None:
    """The disk of the store is not there; the folder that it was mounted on is."""
    succeeded(scene.host.t3("run"))  # which remembers the store of this place
    scene.host.store.rename(scene.host.folder / "elsewhere")
    scene.host.store.mkdir(mode=0o700)


def mount_another(scene: Scene) -> None:
    """The disk in its place has a store of its own."""
    succeeded(scene.host.t3("run"))
    mark = {"format": 1, "id": str(uuid.uuid4())}
    (scene.host.store / "+store").write_text(json.dumps(mark))


def mistype(scene: Scene) -> None:
    """The name of the store in the settings has a slip."""
    succeeded(scene.host.t3("run"))
    scene.set(DEST=f"{scene.host.store}s")


def future(scene: Scene) -> None:
    """The clock was ahead when the newest was taken."""
    ahead = format_time(utc_now() + timedelta(days=400))
    rewrite_manifest(scene.newest.with_suffix(".json"), taken_at=ahead)


def grow_old(scene: Scene) -> None:
    """No run for five days: the machine was off, or the timer was."""
    long_ago = utc_now() - timedelta(days=5)
    for number, path in enumerate(scene.host.snapshots(scene.user)):
        taken = format_time(long_ago + timedelta(hours=number))
        rewrite_manifest(path.with_suffix(".json"), taken_at=taken)
    ledger = json.loads((scene.host.store / "attempts.json").read_text())
    for attempt in ledger["accounts"][scene.user.name]:
        attempt["at"] = format_time(long_ago)
    (scene.host.store / "attempts.json").write_text(json.dumps(ledger))
    metrics = scene.host.folder / "textfiles" / "t3_backup.prom"
    stamp = re.compile(r"^(t3_backup_\w+_timestamp_seconds\{.*\}) .*$", re.MULTILINE)
    metrics.write_text(stamp.sub(rf"\1 {long_ago.timestamp()}", metrics.read_text()))


def give_folder_away(scene: Scene) -> None:
    scene.give(scene.folder)


def break_attempts(scene: Scene) -> None:
    (scene.host.store / "attempts.json").write_text("broken")


def break_catalog(scene: Scene) -> None:
    [catalog] = scene.host.store.glob("*+catalog")
    catalog.write_bytes(b"broken" * 100)


def take_all_room(scene: Scene) -> None:
    """The store is on a disk of its own, which somebody else has filled."""
    commit_row(scene.user)
    where = scene.stack.enter_context(disk(scene.host.folder, "ext4"))
    shutil.move(scene.host.store, where / "store")
    scene.set(DEST=str(where / "store"))
    fill_disk(where)


def limit_account(scene: Scene) -> None:
    commit_row(scene.user)
    used = sum(path.stat().st_size for path in scene.folder.iterdir())
    scene.set(MAX_BYTES=str(used), KEEP="100")


def interrupt_restore(scene: Scene) -> None:
    with paused_restore(scene.host, scene.user) as process:
        process.kill()
        process.wait()


# --- the database


def lose_rows(scene: Scene) -> None:
    """Nine of ten rows of every table."""
    with closing(sqlite3.connect(scene.user.database, isolation_level=None)) as connection:
        named = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        for (table,) in connection.execute(named).fetchall():
            if table not in ("effect_sql_migrations", "sqlite_sequence"):
                connection.execute(f'DELETE FROM "{table}" WHERE rowid % 10 <> 0')
    scene.give(scene.user.database)


def damage(scene: Scene) -> None:
    run_as(scene.user, programs.line("damage_index.py", str(scene.user.database)))


def collate(scene: Scene) -> None:
    """What the installed SQLite can't judge."""
    with closing(sqlite3.connect(scene.user.database, isolation_level=None)) as database:
        database.create_collation("people", lambda one, other: (one > other) - (one < other))
        database.executescript(
            "CREATE TABLE names(n TEXT COLLATE people); CREATE INDEX names_n ON names(n);"
            "INSERT INTO names VALUES ('b'), ('a');"
        )
    scene.give(scene.user.database)


def crowd(scene: Scene) -> None:
    """One database more than is copied."""
    for number in range(MOST):
        path = scene.user.database.parent / f"zz{number:02}.sqlite"
        path.write_bytes(scene.user.database.read_bytes()[:4096])
        with closing(sqlite3.connect(path)) as database:
            database.execute("SELECT 1")
        scene.give(path)
        os.utime(path, (1_700_000_000, 1_700_000_000))


def spoil_second(scene: Scene) -> None:
    """A second database that can't be copied."""
    path = scene.user.database.parent / "junk.sqlite"
    path.write_text("no database")
    scene.give(path)


def delete(scene: Scene) -> None:
    scene.user.database.unlink()


def link(scene: Scene) -> None:
    scene.user.database.unlink()
    scene.user.database.symlink_to("/etc/passwd")


def lock_out(scene: Scene) -> None:
    """The -wal and -shm of another's, as a container leaves them that had the database open."""
    statements = ("PRAGMA journal_mode=wal", "CREATE TABLE late(x)")
    with contextlib.suppress(Exception):  # it dies
        run_sql(scene.user, *statements, end="die")
    for ending in ("-wal", "-shm"):
        os.chown(f"{scene.user.database}{ending}", 0, 0)
        os.chmod(f"{scene.user.database}{ending}", 0o600)


def come_newer(scene: Scene) -> None:
    """A newer t3 was called by hand, beside a server that works with the old database."""
    put_database(scene.user, "statev2.sqlite", "things")
    program = t3_program(scene.host.folder)
    scene.stack.enter_context(serving(scene.user, program, scene.user.database))


def fill_home(scene: Scene) -> None:
    """The disk that T3's folder is on has no room left, and its server has died of it."""
    folder = scene.user.database.parent
    content = scene.user.database.read_bytes()
    scene.stack.enter_context(mounted("tmpfs", folder, "-t", "tmpfs", "-o", "size=1m"))
    scene.give(folder)
    scene.user.database.write_bytes(content)
    scene.give(scene.user.database)
    commit_row(scene.user)
    fill_disk(folder)


def hang(scene: Scene) -> None:
    """A mount of the user's never answers, and holds whoever asks it for anything."""
    scene.set(STALL="4")
    scene.stack.enter_context(never_answering(scene.user.database.parent, scene.user.uid))


def serve_twice(scene: Scene) -> None:
    program = t3_program(scene.host.folder)
    for _ in range(2):
        scene.stack.enter_context(serving(scene.user, program, scene.user.database))


# --- the files beside it


def outgrow_files(scene: Scene) -> None:
    path = scene.user.database.parent / "settings.json"
    path.write_text("{}" * 600)
    scene.give(path)
    scene.set(FILES_LIMIT="1K")


def link_settings(scene: Scene) -> None:
    """A dotfiles manager keeps them elsewhere."""
    kept = scene.user.home / "dotfiles.json"
    kept.write_text("{}")
    (scene.user.database.parent / "settings.json").symlink_to("../../dotfiles.json")
    scene.give(kept, scene.user.database.parent / "settings.json")


# --- the machine


def add_stranger(scene: Scene) -> None:
    with scene.host.map.open("a") as lines:
        lines.write("nobody@example=t3-no-such-user\n")


def add_nonsense(scene: Scene) -> None:
    with scene.host.map.open("a") as lines:
        lines.write("no sense in it\n")


def add_newcomer(scene: Scene) -> None:
    """Another account, whose first backup fails."""
    name = user_name("new")
    user = scene.stack.enter_context(throwaway_user(name, scene.host.folder / "new"))
    user.database.symlink_to("/etc/passwd")
    scene.host.write_map(scene.user, user)


def leave_map(scene: Scene) -> None:
    scene.host.map.write_text("")


def fail_login(scene: Scene) -> None:
    logins = scene.host.folder / "logins"
    logins.mkdir()
    now = format_time(utc_now())
    write_login(logins, scene.user.name, Login(False, "0.0.25", now, now, "exchange: 401"))
    scene.set(LOGINS=str(logins))


def fail_hook(scene: Scene) -> None:
    """It is called for the link in the place of the database, and fails."""
    link(scene)
    folder = scene.host.folder / "hooks.d"
    folder.mkdir()
    (folder / "page").write_text("#!/bin/sh\necho no network; exit 3\n")
    (folder / "page").chmod(0o755)


def open_hook(scene: Scene) -> None:
    """A hook that everybody may change is passed over."""
    fail_hook(scene)
    (scene.host.folder / "hooks.d" / "page").chmod(0o777)


def lose_log(scene: Scene) -> None:
    scene.set(LOG=str(scene.host.folder / "not there" / "log"))


def lose_metrics(scene: Scene) -> None:
    folder = scene.host.folder / "textfiles"
    shutil.rmtree(folder)
    folder.symlink_to("/var/tmp")


def _at_least_one(name: str) -> Callable[[Mapping[str, float]], bool]:
    return lambda seen: seen.get(name, 0) >= 1


def _is_zero(name: str) -> Callable[[Mapping[str, float]], bool]:
    return lambda seen: seen.get(name) == 0


def _is_old(seen: Mapping[str, float]) -> bool:
    """As the alert has it."""
    last = seen.get("last_success_timestamp_seconds", 0)
    return last < (utc_now() - timedelta(hours=26)).timestamp()


_FAILED = _is_zero("last_attempt_ok")
_HELD = _at_least_one("snapshots_held")
_LOST = _at_least_one("snapshots_lost")

TROUBLES = (
    Trouble(
        "the newest snapshot has rotted, and its database is unchanged",
        rot_newest,
        Told("no longer matched its checksum", WARNING, run_code=0),
    ),
    Trouble(
        "the proof of a snapshot fails",
        rot_oldest,
        Told(
            "(?i)does not verify|not what was sealed|proof failed|SHA-256",
            CRITICAL,
            _at_least_one("failed_proofs"),
        ),
    ),
    Trouble(
        "the data of a snapshot is gone",
        remove_data,
        Told("can't be found|has lost", CRITICAL, _LOST),
    ),
    Trouble(
        "the manifest of a snapshot is gone",
        remove_manifest,
        Told("no valid manifest|can't be found", CRITICAL, _LOST),
    ),
    Trouble(
        "the folder of an account is gone",
        remove_account_folder,
        Told("can't be found|has lost", CRITICAL, _LOST),
    ),
    Trouble("the store's disk is not mounted", unmount, Told("is its disk mounted", CRITICAL)),
    Trouble("another store is in its place", mount_another, Told("another store", CRITICAL)),
    Trouble(
        "the name of the store has a slip", mistype, Told("no store at|is new, and the", CRITICAL)
    ),
    Trouble(
        "a snapshot is suspect", lose_rows, Told("is suspect|suspect:|, suspect", CRITICAL, _HELD)
    ),
    Trouble(
        "a snapshot is damaged", damage, Told("is damaged|damaged:|, damaged", CRITICAL, _HELD)
    ),
    Trouble(
        "a snapshot can't be judged",
        collate,
        Told(
            r"is unproven|, unproven|unproven \(",
            WARNING,
            _at_least_one('last_snapshot_verdict{verdict="unproven"}'),
        ),
    ),
    Trouble(
        "a database is one too many to be copied",
        crowd,
        Told(r"zz\d\d\.sqlite", CRITICAL, _at_least_one("uncovered_databases")),
    ),
    Trouble(
        "a database can't be copied",
        spoil_second,
        Told(r"junk\.sqlite", CRITICAL, _at_least_one("missing_databases")),
    ),
    Trouble("the database was deleted", delete, Told("deleted", WARNING, _FAILED)),
    Trouble("a link is in the place of the database", link, Told("symlink", WARNING, _FAILED)),
    Trouble(
        "the last good one is old", grow_old, Told("last good one is|5d old", CRITICAL, _is_old)
    ),
    Trouble(
        "an account was never backed up",
        add_newcomer,
        Told(
            "never backed up|no verified snapshot|backup FAILED|symlink",
            CRITICAL,
            _is_zero("last_success_timestamp_seconds"),
        ),
    ),
    Trouble(
        "the store has no room",
        take_all_room,
        Told("(?i)too little|no space|no room|no backup can be made", WARNING, _FAILED),
    ),
    Trouble("an account is over its limit", limit_account, Told("MAX_BYTES", WARNING, _FAILED)),
    Trouble(
        "the map names somebody who is not there", add_stranger, Told("no-such-user", CRITICAL)
    ),
    Trouble(
        "a line of the map makes no sense",
        add_nonsense,
        Told("no sense in it", WARNING, run_code=0),
    ),
    Trouble(
        "an account has left the map",
        leave_map,
        Told("not in the map|is not in|no users", WARNING, _is_zero("account_in_map")),
    ),
    Trouble(
        "an account folder is its user's",
        give_folder_away,
        Told("takes (it|them) over|take them over", CRITICAL),
    ),
    Trouble("two servers work in one folder", serve_twice, Told(r"pids? \d+", WARNING, run_code=0)),
    Trouble("a newer T3 has worked beside", come_newer, Told("newer t3", WARNING)),
    Trouble(
        "-wal and -shm are somebody else's", lock_out, Told(r"sqlite-(shm|wal)", WARNING, _FAILED)
    ),
    Trouble("the disk of a home is full", fill_home, Told("disk[^;]*full", WARNING, run_code=0)),
    Trouble(
        "a mount of the account's never answers",
        hang,
        Told("does not answer|no sign of life|did not answer", WARNING, _FAILED),
    ),
    Trouble(
        "the files beside are above their limit",
        outgrow_files,
        Told("FILES_LIMIT|not saved", WARNING, _FAILED),
    ),
    Trouble("the settings are a link", link_settings, Told(r"settings\.json", WARNING)),
    Trouble(
        "a restore was interrupted",
        interrupt_restore,
        Told("restore.*interrupted|interrupted restore", CRITICAL, run_code=0),
    ),
    Trouble("a snapshot is of the future", future, Told("future", WARNING)),
    Trouble("nobody can log in", fail_login, Told("nobody can log in", WARNING)),
    Trouble(
        "the list of attempts is broken",
        break_attempts,
        Told(r"attempts\.json", WARNING, run_code=0),
    ),
    Trouble("the catalog of an account is broken", break_catalog, Told("catalog", WARNING)),
    Trouble("a hook fails", fail_hook, Told("(?i)hook.*no network", WARNING)),
    Trouble("a hook is passed over", open_hook, Told("(?i)hook.*page|page.*passed over", WARNING)),
    Trouble("the log can't be written", lose_log, Told("not there", WARNING)),
    Trouble(
        "the metrics can't be written",
        lose_metrics,
        Told("metrics can't be written|textfiles.*symlink", WARNING),
    ),
)
