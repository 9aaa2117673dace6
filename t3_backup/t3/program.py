"""Know T3's program: its forms on a disk, its command lines and its version."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3_backup.errors import Failure
from t3_backup.t3.versions import is_version

NAME = "t3"
QUIET = "T3CODE_TELEMETRY_ENABLED=false"  # of its environment: it sends nothing to its makers
MODULES_DIR = Path("lib/node_modules")  # of npm, beneath a prefix
# PLATFORM-ARCH: each of these packages has the executable, t3, in its root
_PLATFORM_PACKAGE = re.compile(r"@t3code/t3-[a-z0-9-]+")
_OWN_VERSIONS = ("runtime", "versions")  # beneath a base directory
_COMPLETE = ".install-complete"  # in what T3 has installed whole
_LINE_BYTES = 256


def serve_command(program: Path, host: str, port: int, base_dir: Path) -> list[str]:
    """Give the command line of a server."""
    return [str(program), "serve", "--host", host, "--port", str(port), "--base-dir", str(base_dir)]


def mint_command(program: Path, base_dir: Path) -> list[str]:
    """Give the command line that makes and prints a credential."""
    options = ["--base-dir", str(base_dir), "--ttl", "5m", "--json"]
    return [str(program), "auth", "pairing", "create", *options]


def list_sessions_command(program: Path, base_dir: Path) -> list[str]:
    """Give the command line that lists the logins that stand."""
    return [str(program), "auth", "session", "list", "--base-dir", str(base_dir), "--json"]


def revoke_session_command(program: Path, base_dir: Path, session: str) -> list[str]:
    """Give the command line that ends one login; one that has ended is no error."""
    return [str(program), "auth", "session", "revoke", "--base-dir", str(base_dir), session]


def parse_version_output(text: str) -> str:
    """Take the version out of what `t3 --version` prints: '0.0.25' of 't3 v0.0.25'."""
    return text.strip()[:100].removeprefix("t3 v")


@dataclass(frozen=True)
class Package:
    """T3 as it is laid out on a disk: a folder that is whole in itself, and a program in it."""

    folder: Path
    version: str
    program: Path  # relative to the folder
    place: Path  # where it is put beneath a prefix


def find_package(program: Path) -> Package:
    """Find what belongs to a program such as /usr/local/bin/t3.

    That is a package of npm's, a launcher with its platform's package in it, such a package alone,
    or what T3 installs by itself. Raises Failure.
    """
    real = Path(os.path.realpath(program))
    if found := _find_own_layout(real) or _find_npm_package(real):
        return found
    why = f"{program} is no T3 that npm or T3 itself has installed, so its version is unknown"
    raise Failure(f"{why}: npm i -g t3@VERSION, or set T3_BIN")


def _find_npm_package(real: Path) -> Package | None:
    for folder in real.parents:
        about = read_package(folder)
        name = str(about.get("name", ""))
        if (name == NAME or _PLATFORM_PACKAGE.fullmatch(name)) and "version" in about:
            check_launcher(folder, str(folder))
            inner = real.relative_to(folder)
            return Package(folder, str(about["version"]), inner, MODULES_DIR / name)
    return None


def _find_own_layout(real: Path) -> Package | None:
    """Find BASE/runtime/versions/V/t3, which T3 installs by itself. Raises Failure."""
    folder = real.parent
    if real.name != NAME or folder.parts[-3:-1] != _OWN_VERSIONS or not is_version(folder.name):
        return None
    if not (folder / _COMPLETE).exists():
        raise Failure(f"{folder} is not whole: it has no {_COMPLETE}; t3 update {folder.name}")
    return Package(folder, folder.name, Path(NAME), Path("lib") / NAME)


def ensure_program(prefix: Path, spec: str) -> None:
    """See that a prefix of npm's has a program, bin/t3; link it where npm has made none.

    The package of one executable names no program, and has it in its root. Raises Failure where
    there is none, and OSError.
    """
    modules, link = prefix / MODULES_DIR, prefix / "bin" / NAME
    if (modules / NAME).is_dir():
        check_launcher(modules / NAME, spec)
    if not os.path.lexists(link):
        found = [path for path in modules.glob(f"*/*/{NAME}") if _is_platform_package(path.parent)]
        if len(found) == 1 and found[0].is_file():
            link.parent.mkdir(exist_ok=True)
            os.symlink(os.path.relpath(found[0], link.parent), link)
    if not link.is_file() or not os.access(link, os.X_OK):
        raise Failure(f"{spec} has no program t3 in it")


def has_executable(prefix: Path) -> bool:
    """Tell whether npm has put the one executable into a prefix, alone or with its launcher."""
    modules = prefix / MODULES_DIR
    places = (modules, modules / NAME / "node_modules")
    found = (path.parent for place in places for path in place.glob(f"*/*/{NAME}"))
    return any(map(_is_platform_package, found))


def _is_platform_package(folder: Path) -> bool:
    return _PLATFORM_PACKAGE.fullmatch("/".join(folder.parts[-2:])) is not None


def check_launcher(package: Path, spec: str) -> None:
    """Check that a launcher, whose program is in a package for each platform, has one.

    `npm i --omit=optional` leaves it without. Raises Failure.
    """
    optional = read_package(package).get("optionalDependencies")
    names = [name for name in optional or () if _PLATFORM_PACKAGE.fullmatch(name)]
    inner = package / "node_modules"
    if names and not any((inner / name / NAME).is_file() for name in names):
        what = f"{package.name} needs one of {', '.join(sorted(names))}, and none came with it"
        raise Failure(f"{spec}: the launcher has no program: {what} (npm's omit=optional?)")


def read_package(folder: Path) -> dict[str, Any]:
    """Read a package.json; empty where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        return about if isinstance(about, dict) else {}
    return {}


def wanted_node(program: Path) -> str:
    """Say which versions of Node a program wants, as its package has it; empty for no script."""
    real = Path(os.path.realpath(program))
    with open(real, "rb") as file:
        first = file.readline(_LINE_BYTES).split()
    if not first[:1] or not first[0].startswith(b"#!") or not first[-1].endswith(b"node"):
        return ""
    about = next(filter(None, map(read_package, real.parents)), {})
    engines = about.get("engines")
    return str(engines.get("node", "")) if isinstance(engines, dict) else ""
