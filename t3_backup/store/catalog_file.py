"""Keep an account's catalog on the disk: one file beside its folder, changed in place.

It lies at the store's root as USER+catalog, since it must outlive the folder whose loss it tells;
no account folder can have such a name. Each entry is in its slot twice. A change overwrites the
first lines, syncs, and overwrites the second: so a power cut in the middle of a line leaves the
other one, and no block is needed that the file does not have already. What is let go can be noted
on a full disk.

Readers take no lock. Writers hold the store's lock, shared or not, and the file's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping

from t3_backup.accounts import folder_name, user_of_folder
from t3_backup.errors import explain
from t3_backup.store.catalog import Catalog, Entry
from t3_backup.store.catalog_format import (
    BLANK_SLOT,
    LINE,
    SLOT,
    Slot,
    entries_of,
    find_free,
    parse_slots,
    to_line,
)
from t3_backup.system import native

_ENDING = "+catalog"
_BROKEN = ".broken"
_PARTIAL = ".partial-"  # begins what the next command removes
_GROWTH = 64  # slots by which the file grows
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# ioctl_iflags(2): without it btrfs writes elsewhere what is overwritten
_SET_FLAGS, _NO_COW = 0x40086602, 0x00800000


def _name(user: str) -> str:
    return folder_name(user) + _ENDING


def name_of_broken(user: str) -> str:
    """Return the name under which a damaged catalog is kept."""
    return _name(user) + _BROKEN


def users_with_catalog(folder: int) -> list[str]:
    """List the users who have a catalog in the open store, sorted. Raises OSError."""
    os.lseek(folder, 0, os.SEEK_SET)  # btrfs lists what was there when it was last rewound
    names = [name.removesuffix(_ENDING) for name in os.listdir(folder) if name.endswith(_ENDING)]
    return sorted(filter(None, map(user_of_folder, names)))


def read_catalog(folder: int, user: str) -> Catalog:
    """Read the catalog of `user` in the open store; empty where there is none.

    Where it can't be read, `problem` says why; what can be read of it counts.
    """
    name = _name(user)
    try:
        fd = os.open(name, os.O_RDONLY | _OPEN, dir_fd=folder)
    except FileNotFoundError:
        return Catalog()
    except OSError as error:
        return Catalog(problem=f"{name} can't be read: {error.strerror}")
    try:
        slots = _read_slots(fd)
    except (OSError, ValueError) as error:
        return Catalog(problem=f"{name} can't be read: {explain(error)}")
    finally:
        os.close(fd)
    broken = sum(slot.broken for slot in slots)
    problem = f"{name} is damaged: {broken} entries can't be read" if broken else ""
    return Catalog(entries_of(slots), problem)


def change_catalog(
    folder: int, user: str, change: Callable[[Mapping[str, Entry]], Iterable[Entry]]
) -> None:
    """Write the entries that `change` makes of those there are; durable when this returns.

    Raises OSError. One that is damaged is kept aside, and built anew of what can be read.
    """
    while True:
        with _opened(folder, user) as fd:
            if fd is None:
                new = list(change({}))
                if not new or _create(folder, user, new):
                    return
                continue  # somebody else has
            try:
                slots = _read_slots(fd)
            except ValueError:
                slots = [Slot(None, broken=True)]
            if any(slot.broken for slot in slots):
                kept = list(entries_of(slots).values())
                os.rename(_name(user), name_of_broken(user), src_dir_fd=folder, dst_dir_fd=folder)
                if kept:
                    _create(folder, user, kept)
                else:
                    native.sync_directory(folder, _name(user))
                continue
            if new := list(change(entries_of(slots))):
                _overwrite(fd, slots, new)
            return


@contextlib.contextmanager
def _opened(folder: int, user: str) -> Iterator[int | None]:
    """Open and lock the file; None where there is none. Raises OSError."""
    name = _name(user)
    while True:
        try:
            fd = os.open(name, os.O_RDWR | _OPEN, dir_fd=folder)
        except FileNotFoundError:
            yield None
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # whoever had it may have put another in its place
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if os.path.samestat(found, os.fstat(fd)):
                    yield fd
                    return
        finally:
            os.close(fd)


def _create(folder: int, user: str, entries: list[Entry]) -> bool:
    """Make the file, of entries; False where there is one by now. Raises OSError."""
    temporary = f"{_PARTIAL}{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, _SET_FLAGS, _NO_COW.to_bytes(8, "little"))
        _overwrite(fd, [], entries)
        native.rename_noreplace(folder, temporary, _name(user))
    except FileExistsError:
        os.unlink(temporary, dir_fd=folder)
        return False
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(fd)
    native.sync_directory(folder, _name(user))
    return True


def _overwrite(fd: int, slots: list[Slot], entries: list[Entry]) -> None:
    """Give each entry a slot, and write it there, one copy durably before the other."""
    turn = max((slot.turn for slot in slots), default=0) + 1
    names = {entry.name for entry in entries}
    places = {slot.entry.name: at for at, slot in enumerate(slots) if slot.entry is not None}
    free = find_free(slots, names)
    count, lines = len(slots), dict[int, bytes]()
    for entry in entries:
        if entry.name not in places and not free:
            _write_all(fd, BLANK_SLOT * _GROWTH, count * SLOT)
            free += range(count, count + _GROWTH)
            count += _GROWTH
        at = places[entry.name] if entry.name in places else free.pop(0)
        lines[at] = to_line(entry, turn)
    for copy in (0, LINE):
        for at, line in lines.items():
            _write_all(fd, line, at * SLOT + copy)
        native.sync_file(fd, _ENDING)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _read_slots(fd: int) -> list[Slot]:
    """Read all slots. Raises OSError, and ValueError for what is no catalog."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ValueError("it is no regular file")
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        data = file.read()
    return parse_slots(data)
