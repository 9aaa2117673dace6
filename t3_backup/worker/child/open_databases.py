"""Look which SQLite databases the T3 servers of this user hold open. Runs as that user.

Nothing of theirs is opened, nor asked for: /proc alone is read, where a user sees their own
processes. What can't be looked at is told: a server with rights of its own, or whose program they
may not read, hides from its own user. Of processes that are none of T3's, only those are told that
can be looked at: an agent for keys hides from everybody.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from t3_backup.system.deadline import Deadline
from t3_backup.system.proc_files import DELETED
from t3_backup.t3.open_databases import (
    Held,
    OpenDatabases,
    Server,
    Stranger,
    base_dirs_of,
    find_databases,
    is_data,
    is_of,
    limited,
    sidecars_too,
)
from t3_backup.t3.server_processes import (
    Process,
    T3Process,
    choose_servers,
    find_t3_processes,
)
from t3_backup.text import printable
from t3_backup.worker.child.own_processes import (
    is_there,
    read_descriptor,
    read_mounts,
    read_process,
    read_start,
)

MOST_PROCESSES = 4096
MOST_DESCRIPTORS = 4096
# Between two looks at a file without a name: SQLite removes a -wal a moment before it closes it.
_PAUSE_S = 0.1
_OURS = "t3_backup."  # the modules of probes that this project runs as the user
_ENDED = (FileNotFoundError, ProcessLookupError)
_OpenFile = tuple[str, bool, int, str]  # path, whether it was deleted, inode, mount


def look_at_open_databases(
    uid: int, home: str, base_dir: str, seconds: float, expected: Iterable[int] = ()
) -> OpenDatabases:
    """Look at the processes of `uid`, for so many seconds at most.

    `base_dir` is that of the account, with no symlink in it. `expected` are the main processes that
    systemd has for its units: one that is there and can't be seen is told. Raises OSError where
    there is no /proc.
    """
    return _Look(uid, home, base_dir, Deadline.after(seconds)).run(tuple(expected))


class _Look:
    def __init__(self, uid: int, home: str, base_dir: str, until: Deadline) -> None:
        self.uid, self.home, self.base_dir, self.until = uid, home, base_dir, until
        self.problems: list[str] = []

    def run(self, expected: Sequence[int]) -> OpenDatabases:
        processes = self._read_processes()
        for pid in sorted(set(expected) - {0} - {one.pid for one in processes}):
            if is_there(pid):
                self._say(f"the server's process (pid {pid}) can't be seen by its user")
        found = find_t3_processes(processes, self.home)
        held = [one for own in found for one in self._held_by(own)]
        if gone := {(one.pid, one.path) for one in held if one.deleted}:
            time.sleep(_PAUSE_S)
            held = [
                replace(one, deleted=one.deleted and (one.pid, one.path) in gone)
                for own in found
                for one in self._held_by(own)
            ]
        servers = choose_servers(found, processes, {one.pid for one in held})
        own_pids = {own.pid for own in found}
        others = [one for one in processes if one.pid not in own_pids]
        return limited(
            OpenDatabases(
                tuple(
                    Server(
                        one.pid,
                        printable(one.process.own_program() or one.process.program),
                        printable(one.base_dir),
                    )
                    for one in servers
                ),
                tuple(sorted(held, key=lambda one: (one.path, one.pid))),
                tuple(self._strangers(others)),
                tuple(self.problems),
            )
        )

    def _read_processes(self) -> list[Process]:
        """Read the processes of the user, but this one."""
        found: list[Process] = []
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            if len(found) == MOST_PROCESSES or self.until.passed():
                why = f"they are more than {MOST_PROCESSES}"
                why = "no time was left" if self.until.passed() else why
                self._say(f"not every process was looked at: {why}")
                break
            try:
                one = read_process(pid, self.uid)
            except (*_ENDED, IndexError, ValueError):  # it has ended, or is just ending
                continue
            except OSError as error:
                self._say(f"pid {pid} can't be looked at: {error.strerror}")
                continue
            if one is not None and pid != os.getpid():
                found.append(one)
        return found

    def _held_by(self, own: T3Process) -> list[Held]:
        """List the databases that a process of T3's has open."""
        files = self._open_files(own.process, own=True)
        names: dict[str, bool] = {}
        for path, deleted, _, _ in files:
            names[path] = names.get(path, False) or deleted
        found = find_databases(names)
        bases = {own.base_dir, self.base_dir, *base_dirs_of(found)}
        known = {path: (inode, mount) for path, _, inode, mount in files}
        devices = read_mounts(str(own.pid)) if files else {}
        held = []
        for path, deleted in found.items():
            if is_data(path, bases):
                inode, mount = known.get(path, (0, ""))
                device = devices.get(mount, "")
                held.append(Held(printable(path), own.pid, deleted, inode, device))
        return held

    def _strangers(self, others: Sequence[Process]) -> Iterator[Stranger]:
        for process in others:
            if process.is_t3() or any(word.startswith(_OURS) for word in process.arguments):
                continue
            paths = {path for path, *_ in self._open_files(process, own=False)}
            for path in sorted(path for path in paths if is_of(path, self.base_dir)):
                command = printable(" ".join(process.arguments) or process.program, 120)
                yield Stranger(process.pid, command, printable(path))

    def _open_files(self, process: Process, *, own: bool) -> list[_OpenFile]:
        """List what the process has open of files that may be a database's."""
        pid, who = process.pid, f"pid {process.pid} ({_name(process)})"
        if self.until.passed():
            self._say(f"{who} was not looked at: no time was left")
            return []
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except _ENDED:
            return []
        except OSError as error:
            if own:
                self._say(f"{who} can't be looked at: {error.strerror}")
            return []
        if len(names) > MOST_DESCRIPTORS:
            self._say(f"{who} has {len(names)} files open, and {MOST_DESCRIPTORS} were looked at")
        try:
            files = _read_files(pid, names[:MOST_DESCRIPTORS])
            if read_start(pid) != process.start:
                return []  # another process has its pid
        except (*_ENDED, IndexError):
            return []
        except OSError as error:
            if own:
                self._say(f"{who} can't be looked at: {error.strerror}")
            return []
        return files

    def _say(self, text: str) -> None:
        if (text := printable(text)) not in self.problems:
            self.problems.append(text)


def _read_files(pid: int, names: Sequence[str]) -> list[_OpenFile]:
    links: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # it was closed
            links[name] = os.readlink(f"/proc/{pid}/fd/{name}")
    paths = {path.removesuffix(DELETED) for path in links.values() if path.startswith("/")}
    wanted = sidecars_too(find_databases(dict.fromkeys(paths, False)))
    files: list[_OpenFile] = []
    for name, link in links.items():
        if (path := link.removesuffix(DELETED)) in wanted:
            with contextlib.suppress(FileNotFoundError):
                inode, mount, is_open = read_descriptor(str(pid), name)
                if is_open:
                    files.append((path, path != link, inode, mount))
    return files


def _name(process: Process) -> str:
    program = process.own_program() or process.program or "".join(process.arguments[:1])
    return printable(os.path.basename(program), 60) or "?"
