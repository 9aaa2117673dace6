"""Tell which processes of a user are T3 servers, and on which base directory each is.

Pure, over what /proc says. Agents and terminals run beneath a server, in its control group and
often under the same node, and are none: a control group alone says nothing, nor does an
interpreter.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from t3_backup.t3.files import BASE_DIR

BASE_DIR_OPTION = "--base-dir"
BASE_DIR_VARIABLE = "T3CODE_HOME"  # it names the base directory itself
# systemd.exec(5): which process it started; what that one starts inherits the variable, and has
# another pid
_MAIN_VARIABLE = "SYSTEMD_EXEC_PID"
VARIABLES = (BASE_DIR_VARIABLE, "HOME", _MAIN_VARIABLE)  # that are looked at
_PROGRAM = "t3"
_SERVING = frozenset({"serve", "start"})
_ASKING = frozenset({"--version", "-v", "--help", "-h"})
_UNIT, _SERVICE = "t3-serve@", ".service"
# T3's own service, in the manager of its user; none of this project's
_OWN_UNIT, _OTHERS = ("t3code", "t3-", "t3@"), ("t3-backup", "t3-autoupdate")
_MANAGER = "user@"
_PACKAGES = ("/node_modules/t3/", "/node_modules/@t3code/")  # of npm, where a script lies
_INTERPRETERS = frozenset({"node", "nodejs", "bun", "deno", "python"})
# what starts another program, and is that of no server
_WRAPPERS = frozenset({
    "sh", "ash", "bash", "dash", "ksh", "zsh", "fish", "busybox", "env", "sudo", "su", "runuser",
    "setpriv", "bwrap", "nice", "ionice", "timeout", "flock", "tini", "dumb-init",
    "npm", "npx", "pnpm", "yarn", "strace",
})  # fmt: skip
_WITH_VALUE = frozenset({  # options of an interpreter whose value is the next word
    "-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions",
    "--preload", "-X", "-W",
})  # fmt: skip
_WITHOUT_SCRIPT = frozenset({"-e", "--eval", "-p", "--print", "-c", "-m"})


class Process(NamedTuple):
    """What /proc says of a process; texts are empty where it can't be read."""

    pid: int
    parent: int
    arguments: tuple[str, ...]
    program: str = ""  # the file that is executed
    cgroup: str = "/"
    environment: Mapping[str, str] = MappingProxyType({})  # VARIABLES, where they are set
    cwd: str = ""
    start: str = ""  # when it began: a pid may be another process's later

    @property
    def script(self) -> str:
        """Return the script that an interpreter runs, absolute; empty where there is none."""
        at = self._script_at() if self.is_interpreter() else None
        return "" if at is None else os.path.join(self.cwd, self.arguments[at])

    def is_interpreter(self) -> bool:
        """Tell whether its executable says nothing of what it is."""
        return self._executable().rstrip("0123456789.") in _INTERPRETERS

    def own_program(self) -> str:
        """Return what is executed: the script, or the executable.

        Empty for an interpreter without one, and for what only starts another program.
        """
        found = self.script if self.is_interpreter() else self.program
        name = os.path.basename(found).removesuffix("-cli.js")  # npx-cli.js
        return "" if name in _WRAPPERS else found

    def words(self) -> tuple[str, ...]:
        """Return the arguments of the program that is executed."""
        at = self._script_at() if self.is_interpreter() else 0
        return () if at is None else self.arguments[at + 1 :]

    def is_t3(self) -> bool:
        """Tell whether, by its name, it is T3's program, whatever it is about."""
        script = self.script
        if os.path.basename(script) == _PROGRAM or any(one in script for one in _PACKAGES):
            return True
        named = (self.program, *self.arguments[:1])
        return not self.is_interpreter() and _PROGRAM in map(os.path.basename, named)

    def _executable(self) -> str:
        return os.path.basename(self.program or (self.arguments or ("",))[0])

    def _script_at(self) -> int | None:
        at = 1
        while at < len(self.arguments):
            word = self.arguments[at]
            if word in _WITHOUT_SCRIPT:
                return None
            if word in _WITH_VALUE:
                at += 1
            elif not word.startswith("-") and word != "run":  # bun run SCRIPT
                return at
            at += 1
        return None


class T3Process(NamedTuple):
    """A process of T3's."""

    process: Process
    serves: bool  # else it is another one of the same program
    base_dir: str  # absolute

    @property
    def pid(self) -> int:
        """Return its pid."""
        return self.process.pid


def find_t3_processes(processes: Sequence[Process], home: str) -> list[T3Process]:
    """Find T3's own among the `processes` of a user with this home.

    These are the main process of a unit of T3's, whatever serves by its command line, and what
    runs the same program as one of them.
    """
    mains = _main_processes(processes)
    servers = {
        one.pid
        for one in processes
        if one.pid in mains or (one.is_t3() and _says_to_serve(one.words()))
    }
    programs = {one.own_program() for one in processes if one.pid in servers} - {""}
    return [
        T3Process(one, one.pid in servers, base_dir_of(one, home))
        for one in processes
        if one.pid in servers or one.own_program() in programs
    ]


def choose_servers(
    found: Sequence[T3Process], processes: Sequence[Process], holders: Collection[int]
) -> list[T3Process]:
    """Return the servers among T3's processes, each once.

    `holders` have a database open. What only started a server is none, nor is a process that a
    server has begun and that has yet to execute its program.
    """
    serving = {one.pid: one for one in found if one.serves}
    parents = {one.pid: one.parent for one in processes}
    launchers = {
        above
        for one in serving.values()
        for above in _above(one.pid, parents)
        if above in serving and above not in holders
    }
    kept = {pid: one for pid, one in serving.items() if pid not in launchers}
    return [one for one in kept.values() if not _is_copy(one, kept.get(one.process.parent))]


def base_dir_of(process: Process, home: str) -> str:
    """Say which base directory a process of T3's has: as an absolute path."""
    given = base_dir_in(process.words()) or process.environment.get(BASE_DIR_VARIABLE, "").strip()
    own_home = process.environment.get("HOME") or home
    return resolve_base_dir(given, own_home, process.cwd)


def base_dir_in(words: Iterable[str]) -> str:
    """Take the base directory from the words of a command line; empty where none is named."""
    found, is_next = "", False
    for word in words:
        if is_next:
            found = word
        elif word.startswith(f"{BASE_DIR_OPTION}="):
            found = word.partition("=")[2]
        is_next = word == BASE_DIR_OPTION and not is_next
    return found


def resolve_base_dir(given: str, home: str, cwd: str = "") -> str:
    """Make an absolute path of how a base directory is `given`; the usual one where it is not."""
    if not given:
        given = os.path.join(home, BASE_DIR)
    elif given == "~" or given.startswith("~/"):
        given = home + given[1:]
    return os.path.normpath(os.path.join(cwd or home, given))


def unit_of(cgroup: str) -> str:
    """Return the control group of the unit of T3's that this one is in; empty where it is in none.

    Any instance will do: whoever runs it is whose server it is.
    """
    parts, managed = cgroup.split("/"), False
    for at, part in enumerate(parts):
        if not part.endswith(_SERVICE):
            continue
        name = part.removesuffix(_SERVICE)
        own = name == _PROGRAM or (name.startswith(_OWN_UNIT) and not name.startswith(_OTHERS))
        if name.startswith(_UNIT) or (managed and own):
            return "/".join(parts[: at + 1])
        managed = managed or name.startswith(_MANAGER)
    return ""


def _says_to_serve(words: Sequence[str]) -> bool:
    """Tell whether T3's program is a server by its words; without a command it is one, too."""
    if not words or words[0].startswith("-"):
        return _ASKING.isdisjoint(words)
    return not _SERVING.isdisjoint(words)


def _main_processes(processes: Sequence[Process]) -> set[int]:
    """Find the main process of each unit of T3's.

    systemd tells it by a variable. Where that isn't known, it is the one whose parent is outside,
    and of several (an agent's parent may have ended) the one that is T3 by its name.
    """
    units = {one.pid: unit_of(one.cgroup) for one in processes}
    found: set[int] = set()
    for unit in set(units.values()) - {""}:
        members = [one for one in processes if units[one.pid] == unit]
        told = {one.environment.get(_MAIN_VARIABLE) for one in members} - {None}
        main = {one.pid for one in members if str(one.pid) in told}
        if not told:
            outer = [one for one in members if units.get(one.parent) != unit]
            named = [one for one in outer if one.is_t3()]
            main = {one.pid for one in named or outer[:1]}
        found |= main
    return found


def _above(pid: int, parents: Mapping[int, int]) -> Iterable[int]:
    seen = {pid}
    while (pid := parents.get(pid, 0)) and pid not in seen:
        seen.add(pid)
        yield pid


def _is_copy(one: T3Process, parent: T3Process | None) -> bool:
    if parent is None:
        return False
    mine, other = one.process, parent.process
    return (mine.program, mine.arguments) == (other.program, other.arguments)
