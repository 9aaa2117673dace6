"""Take a plain `npm i -g` installation over.

A copy of it becomes the program of every account, by links of ours. The installation stays where it
is. `t3` becomes the launcher, which runs the program of its caller. So do the units of the servers,
by a drop-in that replaces the program in their own command line and nothing else.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.faults import find_faults
from t3_backup.autoupdate.programs.installations import GLOBAL, PROGRAM, Installations, replace_link
from t3_backup.autoupdate.programs.own_program import started_programs, why_left_alone
from t3_backup.autoupdate.programs.package_tree import copy_package
from t3_backup.errors import Failure
from t3_backup.system.atomic_file import replace_path
from t3_backup.system.systemd import Service, call_systemctl
from t3_backup.t3.program import NAME, find_package
from t3_backup.t3.servers import Server
from t3_backup.t3.unit import DROP_INS, TEMPLATE

DROP_IN = DROP_INS / "50-t3-autoupdate.conf"
_ROOT_ONLY = (0,)
_MOST_LINKS = 40  # of a path, as the kernel has it
# a path with the user's name or home in it (systemd.unit(5), "Specifiers")
_OF_EACH_USER = re.compile(r"%h(?:/|$)|/(?:\S*/)?%[iIu](?:/|$)|~|\$\{?HOME")
_PREFIXES = "@-:+!|"  # of a command line in a unit (systemd.service(5))

_DROP_IN = """\
# Of t3-autoupdate: a server runs its account's own program, and nothing while that is being \
changed.
[Unit]
ConditionPathExists=!{root}/%i/held
[Service]
ExecStart=
ExecStart={line}
"""


Refuse = Callable[[str, str], object]  # takes a user and why it can't be done with that one


def adopt_accounts(context: Context, refuse: Refuse) -> str:
    """Have all accounts run by our links; return the default's version. Raises as below."""
    servers, program = context.servers(), context.settings.bin
    return adopt_program(context.installations, program, servers, context.say, refuse)


def raise_refused(user: str, why: str) -> NoReturn:
    """Let one account that can't be taken over end the whole. Raises Failure."""
    raise Failure(f"{user}: {why}")


def adopt_program(
    installations: Installations,
    program: Path,
    servers: Sequence[Server],
    say: Callable[[str], None],
    refuse: Refuse = raise_refused,
) -> str:
    """Take `program` over for these accounts, and return the version of the default.

    `refuse` is told of each that can't be, also since its server would go on to run another
    program of everybody's; one that runs its own is left alone. Once more does no harm. Raises
    Failure, also where none of several can be, and OSError.
    """
    _refuse_home(program, [one.account.home for one in servers if one.account.uid != 0])
    line = rewrite_command(read_unit(), installations.launcher, program)
    if os.path.realpath(program) == str(installations.launcher):
        version = installations.linked_version(GLOBAL)
        if version is None:
            why = f"{program} is our launcher, but {installations.root} has no program"
            raise Failure(f"{why}: npm i -g t3@VERSION, then adopt again")
    else:
        version = _copy_version(installations, program, say)
        if installations.linked_version(GLOBAL) is None:
            installations.link_version(GLOBAL, version)
    installations.write_launcher()
    if line is not None:  # else there are no servers yet
        _write_drop_in(installations.root, line)

    def link(one: Server) -> None:
        if installations.linked_version(one.user) is None:
            installations.link_version(one.user, version)
        if one.service is not None and not why_left_alone(one, installations):
            why = why_another_runs(one.service, installations.launcher, program)
            if why:
                raise Failure(why)

    for user, why in find_faults(servers, link).items():
        refuse(user, why)
    if os.path.realpath(program) != str(installations.launcher):
        replace_link(program, str(installations.launcher))
        say(f"{program} is the launcher now, which runs the T3 of its caller")
    return installations.linked_version(GLOBAL) or version


def _copy_version(installations: Installations, program: Path, say: Callable[[str], None]) -> str:
    """Copy the package of `program` to a prefix of ours; return its version."""
    package = find_package(program)
    version = package.version
    if not installations.is_installed(version):
        with installations.new_version() as folder:
            copy_package(package.folder, folder / package.place, _ROOT_ONLY)
            (folder / PROGRAM).parent.mkdir()
            os.symlink(Path("..", package.place, package.program), folder / PROGRAM)
            about = replace(installations.about(version), origin=f"copied from {package.folder}")
            installations.finish_version(folder, about)
        say(f"T3 {version} was copied from {package.folder} to {installations.prefix(version)}")
    return version


def _refuse_home(program: Path, homes: Sequence[Path]) -> None:
    """Raise Failure where a program is a link into a home, in which root looks at nothing."""
    for _ in range(_MOST_LINKS):
        if any(map(program.is_relative_to, homes)):
            why = "what everybody runs must be root's: npm i -g t3@VERSION, or set T3_BIN"
            raise Failure(f"T3_BIN leads to {program}: {why}")
        if not program.is_symlink():
            return
        program = Path(os.path.normpath(program.parent / os.readlink(program)))


def _write_drop_in(root: Path, line: str) -> None:
    """Write the drop-in of all servers, and have systemd read it; nothing restarts.

    Raises Failure and OSError.
    """
    text = _DROP_IN.format(root=root, line=line)
    if DROP_IN.exists() and DROP_IN.read_text(encoding="utf-8") == text:
        return
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    replace_path(DROP_IN, text.encode(), 0o644)
    call_systemctl("daemon-reload")


def read_unit() -> str:
    """Read the unit of the servers with its drop-ins, but ours; empty without one."""
    done = call_systemctl("cat", TEMPLATE, check=False)
    parts = re.split(r"(?m)^# (/.*)$", done)[1:]  # path, text, path, text ...
    texts = zip(parts[::2], parts[1::2], strict=True)
    return "\n".join(text for path, text in texts if path != str(DROP_IN))


def why_another_runs(service: Service, launcher: Path, program: Path) -> str:
    """Say what else a unit runs than our launcher or `program`; empty if nothing.

    A drop-in whose name comes after ours has the last word: `systemctl edit` makes an
    override.conf. Raises Failure.
    """
    others = [path for path in started_programs(service) if path not in (launcher, program)]
    if not others:
        return ""
    return (
        f"{service.unit} runs {others[0]}, and not the program of its account, by a drop-in that "
        f"comes after {DROP_IN}: systemctl cat {service.unit} shows it; "
        f"let it run {launcher} instead"
    )


def rewrite_command(unit: str, launcher: Path, program: Path) -> str | None:
    """Put `launcher` into the ExecStart= of a unit; None where it has none. Raises Failure."""
    line = ""
    for raw in re.sub(r"[ \t]*\\\n\s*", " ", unit).splitlines():
        name, equals, value = raw.partition("=")
        if equals and name.strip() == "ExecStart":
            line = value.strip()
    if not line:
        return None
    prefix = line[: len(line) - len(line.lstrip(_PREFIXES))]
    words = line.removeprefix(prefix).split()
    if Path(words[0]).name == "node" and len(words) > 1 and not words[1].startswith("-"):
        words = words[1:]  # the program is what node is told to run
    if _OF_EACH_USER.match(words[0]):
        own = "a T3 of each user's own, which they move themselves: nothing is taken over"
        mend = f"next: let it run {launcher} instead, or leave it so"
        raise Failure(f"{TEMPLATE}: ExecStart={line} runs {own}; {mend}")
    known = (os.path.realpath(program), str(launcher))
    if Path(words[0]).name != NAME and os.path.realpath(words[0]) not in known:
        mend = f"let it run {launcher} instead, which runs the T3 of its user"
        raise Failure(f"{TEMPLATE}: ExecStart={line} does not run t3 itself; {mend}")
    rest = line[line.index(words[0], len(prefix)) + len(words[0]) :]
    return f"{prefix}{shlex.quote(str(launcher))}{rest}"
