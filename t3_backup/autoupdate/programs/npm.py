"""Get a version of T3 by npm, which runs in a cell of its own.

npm runs as a user that owns nothing, and so do the scripts of packages, which it runs while it
installs: they reach no account, no store and no program that is in use. Then root copies what came
out, file by file, to a prefix of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from t3_backup.autoupdate import cell
from t3_backup.autoupdate.programs import npm_cell
from t3_backup.autoupdate.programs.installations import PROGRAM, Installations
from t3_backup.autoupdate.programs.node_version import check_node
from t3_backup.autoupdate.programs.package_tree import copy_package
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.system.systemd import PATH
from t3_backup.t3.output import innermost_error
from t3_backup.t3.program import ensure_program, has_executable, parse_version_output
from t3_backup.text import printable

FETCHED_IN = cell.PRIVATE
_NAME = "t3-fetch"
_VERSION_NAME = f"{_NAME}-version"
_WANTED = "etc/t3-fetch"  # in the root of its cell: which version is fetched
_FILE_BYTES = 1 << 30  # of one that a program makes as it tells its version
_SECONDS = 900
_VERSION_SECONDS = 60
_QUIETLY = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")


def fetch_version(
    installations: Installations, version: str, spec: str, say: Callable[[str], None]
) -> None:
    """Install `version` in its own prefix, from `spec`: npm's name, or an archive.

    Where it is installed already, nothing is done: going forth and back needs no network. Raises
    Failure and OSError.
    """
    if installations.is_installed(version):
        _check_node(installations.prefix(version), version)
        return
    try:
        folder = cell.build_cell(_NAME, {_WANTED: version})
        _run_npm(spec, "install", "--ignore-scripts", _local_copy(spec, folder))
        # The one executable comes built. Its packages' scripts would build anew what it never
        # uses, for which there may be no compiler, and npm would leave it out of a launcher.
        if not has_executable(folder / "prefix"):
            _run_npm(spec, "rebuild")
        _keep_version(installations, version, spec, folder / "prefix")
    finally:
        _remove_cells()
    say(f"T3 {version} was installed in {installations.prefix(version)}")


def _run_npm(spec: str, command: str, *words: str) -> None:
    """Run npm in its cell. Raises Failure."""
    done = npm_cell.run_npm(_NAME, [command, "--global", *_QUIETLY, *words], _SECONDS)
    if done.code != 0 or done.stopped_for:
        why = "it took too long" if done.timed_out else done.stopped_for or _explain(done)
        raise Failure(f"npm could not install {spec}: {why}")


def _keep_version(installations: Installations, version: str, spec: str, made: Path) -> None:
    """Copy what npm has made to a prefix of ours, if it is that version."""
    with installations.new_version() as folder:
        if not (made / "lib").is_dir() or (made / "lib").is_symlink() or made.is_symlink():
            raise Failure(f"{spec} has no program t3 in it")
        target = folder / "prefix"
        copy_package(made, target, (made.lstat().st_uid, 0))
        for part in ("bin", "lib"):
            if (target / part).is_dir():
                os.rename(target / part, folder / part)
        shutil.rmtree(target)
        ensure_program(folder, spec)
        _check_node(folder, version)
        if (said := ask_version(folder)) != version:
            raise Failure(f"{spec} is not T3 {version}: it says {printable(said, 100)!r}")
        about = replace(installations.about(version), origin=f"npm {spec}")
        installations.finish_version(folder, about)


def ask_version(prefix: Path) -> str:
    """Ask the program in a prefix for its version, in a cell without network. Raises Failure."""
    return parse_version_output(_ask(prefix, [str(prefix / PROGRAM), "--version"]))


def _ask(prefix: Path, line: list[str]) -> str:
    """Run a command in a cell that has no more than a prefix; return what it printed."""
    cell.build_cell(_VERSION_NAME, {})
    try:
        home = cell.home_dir(_VERSION_NAME)
        bare = ["/usr/bin/env", "-i", f"HOME={home}", f"TMPDIR={home}", f"PATH={PATH}"]
        shown: list[str | Path] = [prefix, *npm_cell.outside_of_usr("node")]
        done = transient_unit.run(
            [*bare, "LANG=C.UTF-8", *line],
            name=_VERSION_NAME,
            properties=(*cell.cell_properties(_VERSION_NAME, shown, _FILE_BYTES), "PrivateTmp=yes"),
            seconds=_VERSION_SECONDS,
        )
    finally:
        cell.remove_cell(_VERSION_NAME)
    if done.code != 0:
        why = "it took too long" if done.timed_out else _explain(done)
        raise Failure(f"{' '.join(line)} failed: {why}")
    return done.out


def _check_node(prefix: Path, version: str) -> None:
    check_node(prefix / PROGRAM, version, lambda line: _ask(prefix, line))


def remove_interrupted(say: Callable[[str], None]) -> bool:
    """End and remove a fetch that was killed, and say so; tell whether there was one.

    Raises Failure and OSError.
    """
    wanted = ""
    with contextlib.suppress(OSError):
        wanted = (cell.root_dir(_NAME) / _WANTED).read_text(encoding="ascii")
    if not _remove_cells():
        return False
    say(f"an installation of T3 {wanted}{' ' if wanted else ''}was interrupted: removed")
    return True


def _remove_cells() -> bool:
    return cell.remove_cells(_NAME)


def _local_copy(spec: str, folder: Path) -> str:
    """Say what npm is to install; an archive is copied to where npm can reach it."""
    path = Path(spec.removeprefix("file:"))
    if not path.is_absolute():
        return spec
    try:
        copy = folder / "t3.tgz"
        shutil.copyfile(path, copy)
    except OSError as error:
        raise Failure(f"T3_NPM_SPEC: {path}: {error.strerror}") from None
    return str(cell.home_dir(_NAME) / copy.name)


def _explain(done: transient_unit.Done) -> str:
    return innermost_error(done.err) or innermost_error(done.out) or f"exit status {done.code}"
