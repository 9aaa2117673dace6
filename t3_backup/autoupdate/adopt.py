"""Take a plain `npm i -g` installation over: a copy of it becomes the program of every account, through links that are ours.

What it was stays where it is. `t3` becomes the launcher, which runs the program of its caller; the units of the servers run that,
too, by a drop-in that replaces the program in their own command line and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from t3_backup.autoupdate.installations import GLOBAL, About, Programs, copy_package, replace_link
from t3_backup.errors import Failure
from t3_backup.system.atomic_file import replace_path
from t3_backup.system.systemd import Service

DROP_IN = Path("/etc/systemd/system/t3-serve@.service.d/50-t3-autoupdate.conf")
_TEMPLATE = "t3-serve@.service"
_ROOT_ONLY = (0,)
_PREFIXES = "@-:+!|"  # of a command line in a unit (systemd.service(5))
_SECONDS = 60

_DROP_IN = """\
# Of t3-autoupdate: a server runs its account's own program, and nothing while that is being changed.
[Unit]
ConditionPathExists=!{root}/%i/held
[Service]
ExecStart=
ExecStart={line}
"""


def package_of(program: Path) -> tuple[Path, str]:
    """The npm package that a program such as /usr/local/bin/t3 is of, and its version. Raises Failure."""
    real = Path(os.path.realpath(program))
    for folder in real.parents:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
            if folder.parent.name == "node_modules":
                return folder, str(about["version"])
    raise Failure(
        f"{program} is no program of an npm package, so that T3's version can't be told: npm i -g t3@VERSION, or set T3_BIN"
    )


def adopt(programs: Programs, program: Path, users: Sequence[str], say: Callable[[str], None]) -> str:
    """Do it, of all accounts; the version. Again is harmless. Raises Failure (a server would run another, too) and OSError."""
    if os.path.realpath(program) == str(programs.launcher):
        version = programs.program_of(GLOBAL)
        if version is None:
            raise Failure(f"{program} is our launcher, but {programs.root} has no program: npm i -g t3@VERSION, then adopt again")
    else:
        version = _install(programs, program, say)
        if programs.program_of(GLOBAL) is None:
            programs.link(GLOBAL, version)
    for user in users:
        if programs.program_of(user) is None:
            programs.link(user, version)
    programs.write_launcher()
    _write_drop_in(programs, program)
    for service in filter(None, map(Service.of, users)):
        if why := runs_another(service, programs.launcher, program):
            raise Failure(why)
    if os.path.realpath(program) != str(programs.launcher):
        replace_link(program, str(programs.launcher))
        say(f"{program} is the launcher now, which runs the T3 of its caller")
    return programs.program_of(GLOBAL) or version


def _install(programs: Programs, program: Path, say: Callable[[str], None]) -> str:
    """Copy what `program` is to a prefix of ours; its version."""
    package, version = package_of(program)
    if not programs.is_installed(version):
        folder = programs.begin()
        copy_package(package, folder / "lib" / "node_modules" / package.name, _ROOT_ONLY)
        (folder / "bin").mkdir()
        inner = Path(os.path.realpath(program)).relative_to(package)
        os.symlink(Path("..", "lib", "node_modules", package.name, inner), folder / "bin" / "t3")
        programs.settle(folder, About(version, f"copied from {package}", programs.about(version).level))
        say(f"T3 {version} was copied from {package} to {programs.prefix(version)}")
    return version


def _write_drop_in(programs: Programs, program: Path) -> None:
    """Have the drop-in of all servers, and have systemd know of it. Nothing is started or stopped. Raises Failure and OSError."""
    line = command_line(unit_text(), programs.launcher, program)
    if line is None:
        return  # there are no servers yet
    text = _DROP_IN.format(root=programs.root, line=line)
    if DROP_IN.exists() and DROP_IN.read_text(encoding="utf-8") == text:
        return
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    replace_path(DROP_IN, text.encode(), 0o644)
    _systemctl("daemon-reload")


def unit_text() -> str:
    """The unit of the servers with its drop-ins, but ours; empty where there is none."""
    done = _systemctl("cat", _TEMPLATE, check=False)
    parts = re.split(r"(?m)^# (/.*)$", done)[1:]  # path, text, path, text ...
    return "\n".join(text for path, text in zip(parts[::2], parts[1::2], strict=True) if path != str(DROP_IN))


def runs_another(service: Service, launcher: Path, program: Path) -> str:
    """What a unit runs that is not our launcher, nor `program`, which becomes a link to it; empty where it doesn't. Raises Failure.

    A drop-in whose name comes after ours has the last word: `systemctl edit` makes an override.conf.
    """
    found = re.findall(r"\{ path=(\S+) ;", service.show("ExecStart"))
    others = [path for path in found if path not in (str(launcher), str(program))]
    if not others:
        return ""
    return (
        f"{service.unit} runs {others[0]}, and not the program of its account, by a drop-in that comes after {DROP_IN}: "
        f"systemctl cat {service.unit} shows it; let it run {launcher} instead"
    )


def command_line(unit: str, launcher: Path, program: Path) -> str | None:
    """The ExecStart= of a unit with `launcher` for its T3, all else as it stands; None where it has none. Raises Failure."""
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
    if Path(words[0]).name != "t3" and os.path.realpath(words[0]) not in (os.path.realpath(program), str(launcher)):
        raise Failure(
            f"{_TEMPLATE}: ExecStart={line} does not run t3 itself; let it run {launcher} instead, which runs the T3 of its user"
        )
    rest = line[line.index(words[0], len(prefix)) + len(words[0]) :]
    return f"{prefix}{shlex.quote(str(launcher))}{rest}"


def _systemctl(*words: str, check: bool = True) -> str:
    line = ["systemctl", "--no-pager", *words]
    try:
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{' '.join(line)}: {error}") from None
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(line)} failed: {(done.stderr.strip().splitlines() or ['no reason is given'])[0]}")
    return done.stdout
