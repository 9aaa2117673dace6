"""By what one user may try to cost all others their backup: twelve means, each a block in which it
is in force. All of it is what the user themself could do, or have done to their own files."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

from demo.users import User
from support import programs
from support.databases import MIB
from support.filesystems import fill_disk, mounted, never_answering
from support.processes import user_process
from support.sampling import amount

FILES = (1_000_000, 5_000)  # in a soak, and else
_PAGE = 4096
_HEADER_PAGES = slice(28, 32)  # in a database's header: how many pages it has


@contextlib.contextmanager
def silent_home(user: User) -> Iterator[None]:
    """A network mount that has stalled, over the whole home."""
    with never_answering(user.home, user.uid):
        yield


@contextlib.contextmanager
def silent_folder(user: User) -> Iterator[None]:
    """The same over the folder of the databases."""
    with never_answering(user.database.parent, user.uid):
        yield


@contextlib.contextmanager
def silent_file(user: User) -> Iterator[None]:
    """The same over the live database's -wal alone."""
    wal = Path(f"{user.database}-wal")
    wal.touch()
    user.give(wal)
    with never_answering(wal, user.uid):
        yield


@contextlib.contextmanager
def sparse(user: User) -> Iterator[None]:
    """A database that takes next to nothing of the user's disk, and claims 700 MiB."""
    with user.database.open("r+b") as file:
        file.truncate(700 * MIB)
        header = bytearray(file.read(100))
        header[_HEADER_PAGES] = (700 * MIB // _PAGE).to_bytes(4, "big")
        file.seek(0)
        file.write(header)
    yield


@contextlib.contextmanager
def too_large(user: User) -> Iterator[None]:
    """A database that is sound, and larger than an account's share of the store."""
    with closing(sqlite3.connect(user.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE large (x)")
        for _ in range(amount(12, 3)):
            connection.execute("INSERT INTO large VALUES (randomblob(?))", (16 * MIB,))
    user.give(user.database)
    yield


@contextlib.contextmanager
def stopped_workers(user: User) -> Iterator[None]:
    """Each worker that has become the user is put to sleep by them."""
    with user_process(user, programs.line("stop_own.py", "0.02"), "stops"):
        yield


@contextlib.contextmanager
def taken_ports(user: User) -> Iterator[None]:
    """Somebody listens wherever servers might, and answers nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            one.listen()
        yield


@contextlib.contextmanager
def garbage(user: User) -> Iterator[None]:
    """Sixteen databases of bytes that are none, of which some begin as one does."""
    chance = random.Random(user.uid)
    for number in range(15):
        path = user.database.with_name(f"garbage{number}.sqlite")
        start = b"SQLite format 3\0" if number % 2 else b""
        path.write_bytes(start + chance.randbytes(64 << 10))
        user.give(path)
    user.database.write_bytes(b"SQLite format 3\0" + chance.randbytes(MIB))
    yield


@contextlib.contextmanager
def full_home(user: User) -> Iterator[None]:
    """A home of its own disk, which has no free byte."""
    state = user.database.read_bytes()
    with mounted("tmpfs", user.home, "-t", "tmpfs", "-o", "size=8m,mode=0700"):
        user.database.parent.mkdir(parents=True)
        user.database.write_bytes(state)
        for path in (user.home, user.home / ".t3", user.database.parent, user.database):
            user.give(path)
        fill_disk(user.home)
        yield


@contextlib.contextmanager
def endless_wal(user: User) -> Iterator[None]:
    """A server that commits all the time, and whose -wal only grows."""
    with _growing(user, user.database):
        yield


@contextlib.contextmanager
def endless_wal_elsewhere(user: User) -> Iterator[None]:
    """The same with a database that nobody backs up."""
    with _growing(user, user.home / "other.sqlite"):
        yield


def _growing(user: User, database: Path) -> AbstractContextManager[object]:
    line = programs.line("keep_growing.py", str(database), str(256 * MIB))
    return user_process(user, line, "grows")


@contextlib.contextmanager
def countless_files(user: User) -> Iterator[None]:
    """More attachments than anybody has."""
    folder = user.database.parent / "attachments"
    folder.mkdir()
    user.give(folder)
    first = folder / "0"
    first.write_text("one")
    user.give(first)
    for number in range(1, amount(*FILES)):
        if number % 30_000 == 0:  # names of one file, of which ext4 allows 65,000
            first = folder / str(number)
            first.write_text("one")
            user.give(first)
        else:
            os.link(first, folder / str(number))
    yield


@contextlib.contextmanager
def odd_names(user: User) -> Iterator[None]:
    """Names that are no text, or a path, an option or a command to whoever is careless."""
    names = [b"a\nb.sqlite", b"\xff\xfe.sqlite", b"-rf.sqlite", b"$(id).sqlite", b"x" * 240]
    names += [
        b"\x1b[2J.sqlite",
        b"..sqlite",
        b"%s%n.sqlite",
        b"a b;c.sqlite",
        "\u202e.sqlite".encode(),
    ]
    folder = os.fsencode(user.database.parent)
    for number, name in enumerate(names * 2):
        path = os.path.join(folder, b"%d" % number + name if number >= len(names) else name)
        kind = number % 5
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            os.symlink(b"/etc/shadow", path)
        elif kind == 2:
            os.mkdir(path)
        else:
            shutil.copyfile(user.database, path)
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
    yield


MEANS: dict[str, Callable[[User], AbstractContextManager[None]]] = {
    "a silent mount over the home": silent_home,
    "a silent mount over the databases' folder": silent_folder,
    "a silent mount over the -wal": silent_file,
    "a sparse database that claims 700 MiB": sparse,
    "a database larger than its share": too_large,
    "workers that are put to sleep": stopped_workers,
    "ports that are taken": taken_ports,
    "databases of garbage": garbage,
    "a home without a free byte": full_home,
    "a -wal that grows without end": endless_wal,
    "countless attachments": countless_files,
    "names that are no text": odd_names,
}
# A backup yields to whoever works, so a busy disk makes it slower, whatever it is busy with. That
# is in force while the time without the means is taken.
BURDENS: dict[str, Callable[[User], AbstractContextManager[None]]] = {
    "a -wal that grows without end": endless_wal_elsewhere,
}


@contextlib.contextmanager
def burden_of(means: str, user: User) -> Iterator[None]:
    """What the means costs the machine, though nobody backs it up."""
    with BURDENS[means](user) if means in BURDENS else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def in_force(means: str, user: User, database: Path) -> Iterator[None]:
    """One means of the user's, who has their own database before it and after it."""
    with MEANS[means](user):
        yield
    folder = user.database.parent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755, exist_ok=True)
    shutil.copyfile(database, user.database)
    for path in (folder, user.database):
        user.give(path)
