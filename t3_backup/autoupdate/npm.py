"""Get a version of T3 by npm, in a unit of its own.

The unit has the network and nothing of this machine. npm runs as a user that owns nothing. Then
root copies what came out, file by file, to a prefix of its own. What npm runs while it installs
(scripts of packages) reaches no account, no store and no program that is in use.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from t3_backup.autoupdate.installations import PROGRAM, About, Installations
from t3_backup.autoupdate.package_tree import copy_package, remove_tree
from t3_backup.errors import Failure
from t3_backup.system import transient_unit
from t3_backup.t3.program import parse_version_output
from t3_backup.t3.unit import SETTINGS_DIR

_NAME = "t3-fetch"
FETCHED_IN = Path("/var/lib/private")  # of a DynamicUser= (systemd.exec(5))
_STATE = FETCHED_IN / _NAME
_HOME = f"/var/lib/{_NAME}"
_PUBLIC = Path(_HOME)
_SECONDS = 900
_VERSION_SECONDS = 60
_QUIETLY = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
PROPERTIES = (
    "DynamicUser=yes",
    f"StateDirectory={_NAME}",
    f"Environment=HOME={_HOME} npm_config_cache={_HOME}/cache npm_config_prefix={_HOME}/prefix",
    f"WorkingDirectory={_HOME}",
    "ProtectHome=yes",
    "ProtectSystem=strict",
    "ProtectProc=invisible",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictSUIDSGID=yes",
    "UMask=0022",
    f"InaccessiblePaths=-/var/backups -/var/log -{SETTINGS_DIR} -/run/user",
    "TasksMax=256",
)


def fetch_version(
    installations: Installations, version: str, spec: str, say: Callable[[str], None]
) -> None:
    """Install `version` in its own prefix, from `spec`: npm's name, or an archive.

    Where it is installed already, nothing is done: going forth and back needs no network. Raises
    Failure and OSError.
    """
    if installations.is_installed(version):
        return
    remove_leftovers()
    try:
        _STATE.mkdir(mode=0o700, parents=True)
        line = ["npm", "install", "--global", *_QUIETLY, _local_copy(spec)]
        done = transient_unit.run(line, name=_NAME, properties=PROPERTIES, seconds=_SECONDS)
        if done.code != 0:
            why = "it took too long" if done.timed_out else _last_line(done)
            raise Failure(f"npm could not install {spec}: {why}")
        _keep_version(installations, version, spec)
    finally:
        remove_leftovers()
    say(f"T3 {version} was installed in {installations.prefix(version)}")


def _keep_version(installations: Installations, version: str, spec: str) -> None:
    """Copy what npm has made to a prefix of ours, if it is that version."""
    made = _STATE / "prefix"
    folder = installations.begin_version()
    try:
        for part in ("", "bin", "lib"):
            if not (made / part).is_dir() or (made / part).is_symlink():
                raise Failure(f"{spec} has no program t3 in it")
        target = folder / "prefix"
        copy_package(made, target, (made.lstat().st_uid, 0))
        for part in ("bin", "lib"):
            os.rename(target / part, folder / part)
        shutil.rmtree(target)
        if not (folder / PROGRAM).exists():
            raise Failure(f"{spec} has no program t3 in it")
        if (said := ask_version(folder / PROGRAM)) != version:
            raise Failure(f"{spec} is not T3 {version}: it says {said!r}")
        level = installations.about(version).level
        installations.finish_version(folder, About(version, f"npm {spec}", level))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def ask_version(program: Path) -> str:
    """Ask a program its version, as a user that owns nothing, without network. Raises Failure."""
    line, properties = [str(program), "--version"], (*PROPERTIES, "PrivateNetwork=yes")
    name = f"{_NAME}-version"
    done = transient_unit.run(line, name=name, properties=properties, seconds=_VERSION_SECONDS)
    if done.code != 0:
        raise Failure(f"{program} --version failed: {_last_line(done)}")
    return parse_version_output(done.out)


def remove_leftovers() -> None:
    """End and remove a fetch that was killed while npm ran. Raises Failure and OSError."""
    if _STATE.exists():
        transient_unit.end(f"{_NAME}*.service")
        remove_tree(_STATE)
    if _PUBLIC.is_symlink():
        _PUBLIC.unlink()


def _local_copy(spec: str) -> str:
    """Say what npm is to install; an archive is copied to where npm can reach it."""
    path = Path(spec.removeprefix("file:"))
    if not path.is_absolute():
        return spec
    try:
        copy = _STATE / "t3.tgz"
        shutil.copyfile(path, copy)
    except OSError as error:
        raise Failure(f"T3_NPM_SPEC: {path}: {error.strerror}") from None
    return f"{_HOME}/{copy.name}"


def _last_line(done: transient_unit.Done) -> str:
    lines = [line.strip() for line in (done.err or done.out).splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit status {done.code}")[:500]
