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
from pathlib import Path
from typing import NoReturn

from t3_backup.autoupdate.context import Context
from t3_backup.autoupdate.installations import GLOBAL, PROGRAM, About, Installations, replace_link
from t3_backup.autoupdate.package_tree import copy_package
from t3_backup.errors import Failure
from t3_backup.system.atomic_file import replace_path
from t3_backup.system.systemd import Service, call_systemctl
from t3_backup.t3.program import MODULES_DIR, NAME, find_package
from t3_backup.t3.servers import find_service
from t3_backup.t3.unit import DROP_INS, TEMPLATE

DROP_IN = DROP_INS / "50-t3-autoupdate.conf"
_ROOT_ONLY = (0,)
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
    users = [one.user for one in context.servers()]
    return adopt_program(context.installations, context.settings.bin, users, context.say, refuse)


def raise_refused(user: str, why: str) -> NoReturn:
    """Let one account that can't be taken over end the whole. Raises Failure."""
    raise Failure(f"{user}: {why}")


def adopt_program(
    installations: Installations,
    program: Path,
    users: Sequence[str],
    say: Callable[[str], None],
    refuse: Refuse = raise_refused,
) -> str:
    """Take `program` over for these users, and return the version of the default.

    `refuse` is told of each that can't be, also since its server would go on to run another
    program. Once more does no harm. Raises Failure and OSError.
    """
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
    _write_drop_in(installations, program)
    for user in users:
        try:
            if installations.linked_version(user) is None:
                installations.link_version(user, version)
            service, why = find_service(user), ""
            if service is not None:
                why = why_another_runs(service, installations.launcher, program)
        except Failure as failure:
            why = str(failure)
        if why:
            refuse(user, why)
    if os.path.realpath(program) != str(installations.launcher):
        replace_link(program, str(installations.launcher))
        say(f"{program} is the launcher now, which runs the T3 of its caller")
    return installations.linked_version(GLOBAL) or version


def _copy_version(installations: Installations, program: Path, say: Callable[[str], None]) -> str:
    """Copy the package of `program` to a prefix of ours; return its version."""
    package, version = find_package(program)
    if not installations.is_installed(version):
        folder = installations.begin_version()
        copy_package(package, folder / MODULES_DIR / package.name, _ROOT_ONLY)
        (folder / PROGRAM).parent.mkdir()
        inner = Path(os.path.realpath(program)).relative_to(package)
        os.symlink(Path("..", MODULES_DIR, package.name, inner), folder / PROGRAM)
        level = installations.about(version).level
        installations.finish_version(folder, About(version, f"copied from {package}", level))
        say(f"T3 {version} was copied from {package} to {installations.prefix(version)}")
    return version


def _write_drop_in(installations: Installations, program: Path) -> None:
    """Write the drop-in of all servers, and have systemd read it; nothing restarts.

    Raises Failure and OSError.
    """
    line = rewrite_command(read_unit(), installations.launcher, program)
    if line is None:
        return  # there are no servers yet
    text = _DROP_IN.format(root=installations.root, line=line)
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
    found = re.findall(r"\{ path=(\S+) ;", service.show("ExecStart"))
    others = [path for path in found if path not in (str(launcher), str(program))]
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
    known = (os.path.realpath(program), str(launcher))
    if Path(words[0]).name != NAME and os.path.realpath(words[0]) not in known:
        mend = f"let it run {launcher} instead, which runs the T3 of its user"
        raise Failure(f"{TEMPLATE}: ExecStart={line} does not run t3 itself; {mend}")
    rest = line[line.index(words[0], len(prefix)) + len(words[0]) :]
    return f"{prefix}{shlex.quote(str(launcher))}{rest}"
