"""What can become of an account's databases, and of the files beside them, by real means."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing

from support import programs
from support.databases import commit_row, put_database
from support.filesystems import fill_disk, mounted, never_answering
from support.live_database import run_as, run_sql
from support.scene import Scene
from support.t3_server import serving, t3_program
from t3_backup.t3.databases import MOST


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
