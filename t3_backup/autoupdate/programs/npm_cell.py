"""Run npm in a cell, since it runs what packages tell it to: their install scripts.

The cell is the gate's, and has npm and its certificates besides. All of its network is a proxy,
which reaches no address of this machine. What npm may add to the disk is limited.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from t3_backup.autoupdate import cell
from t3_backup.autoupdate.programs.npm_inside import HOST, PORT
from t3_backup.autoupdate.programs.npm_settings import global_files
from t3_backup.system import transient_unit
from t3_backup.system.systemd import PATH
from t3_backup.t3.unit import SETTINGS_DIR

_CERTIFICATES = ("-/etc/ssl/certs", "-/etc/ssl/openssl.cnf", "-/etc/ca-certificates.conf")
_TEMPORARY = "tmp"  # in its folder
_FILE_BYTES = 2 << 30
_MOST_BYTES, _MOST_FILES = 4 << 30, 500_000  # that it may add
_SHARE = 0.9  # of what is free, at most
_OF_THE_PROXY = (
    "DynamicUser=yes",
    "ProtectHome=yes",
    "ProtectSystem=strict",
    "ProtectProc=invisible",
    "ProtectKernelTunables=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "MemoryMax=512M",
    "MemorySwapMax=0",
    "TasksMax=64",
    "LimitCORE=0",
    "LimitFSIZE=0",
    "SuccessExitStatus=KILL",  # it serves until it is ended
    f"InaccessiblePaths=-/var/backups -/var/log -{SETTINGS_DIR} -/run/user",
)


@dataclass(frozen=True)
class Room:
    """What is free on a file system, or what a folder holds."""

    bytes: int
    files: int  # inodes; 0 also where it doesn't count them


def run_npm(name: str, words: Sequence[str], seconds: float) -> transient_unit.Done:
    """Run npm with these words in the cell `name`, which is there. Raises Failure and OSError."""
    home, files = cell.home_dir(name), global_files()
    (cell.PRIVATE / name / _TEMPORARY).mkdir(exist_ok=True)
    url = f"http://{HOST}:{PORT}"
    environ = {
        "HOME": str(home),
        "TMPDIR": f"{home}/{_TEMPORARY}",
        "PATH": PATH,
        "LANG": "C.UTF-8",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), url),
        "npm_config_proxy": url,
        "npm_config_https_proxy": url,
        "npm_config_noproxy": "",
        "npm_config_cache": f"{home}/cache",
        "npm_config_prefix": f"{home}/prefix",
    }
    if files:
        environ["npm_config_globalconfig"] = str(files[0])
    # what an administrator has put into the environment of all units is not for packages to see
    line = ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in environ.items())]
    line += [*_python("npm_inside"), "npm", *words]
    proxy = [*_python("npm_proxy"), *map(str, files)]
    inside, outside = socket.socketpair()
    with (
        inside,
        outside,
        transient_unit.running(
            ["/usr/bin/env", "-i", f"PATH={PATH}", "LANG=C.UTF-8", *proxy],
            name=f"{name}-proxy",
            properties=_OF_THE_PROXY,
            seconds=seconds,
            stdin=outside.fileno(),
        ),
    ):
        return transient_unit.run(
            line,
            name=name,
            properties=_properties(name, files),
            seconds=seconds,
            stdin=inside.fileno(),
            watch=watch_room(cell.PRIVATE / name),
        )


def _properties(name: str, files: Sequence[Path]) -> tuple[str, ...]:
    temporary = cell.PRIVATE / name / _TEMPORARY
    shown = [*_CERTIFICATES, *(str(path) for path in files if not path.is_relative_to("/usr"))]
    shown += [*outside_of_usr("npm"), *outside_of_usr("node")]
    return (
        *cell.cell_properties(name, list(dict.fromkeys(shown)), _FILE_BYTES),
        # A DynamicUser= has them on the machine's /tmp else; its own folder is watched.
        f"BindPaths={temporary}:/tmp {temporary}:/var/tmp",
        "UMask=0022",
        "Nice=10",
    )


def outside_of_usr(program: str) -> list[str]:
    """Give the prefix of a program that is not beneath /usr, where all of that is in the cell."""
    found = shutil.which(program, path=PATH)
    real = Path(os.path.realpath(found)) if found else Path("/usr")
    if real.is_relative_to("/usr"):
        return []
    above = [folder.parent for folder in real.parents if folder.name in ("bin", "lib")]
    return [str(folder) for folder in above[-1:] if folder != Path("/")]


def watch_room(folder: Path) -> Callable[[], str]:
    """Give what says, whenever it is called, why too much was written since now. Raises OSError."""
    before = _read_room(folder)
    return lambda: why_too_much(before, _read_room(folder), lambda: _measure(folder))


def why_too_much(before: Room, now: Room, measure: Callable[[], Room]) -> str:
    """Say how what was free `before` has gone; empty while that is no more than it may be. Pure.

    Others write to that disk, too: `measure` says what npm's folder holds, and is asked once more
    has gone than npm may take. Where nearly all has gone it isn't: a file that was removed while it
    is open takes room, and is in no folder.
    """
    nearly_all = Room(int(_SHARE * before.bytes), int(_SHARE * before.files))
    most = Room(min(_MOST_BYTES, nearly_all.bytes), min(_MOST_FILES, nearly_all.files))
    gone = Room(before.bytes - now.bytes, before.files - now.files)
    if gone.bytes > most.bytes and (gone.bytes > nearly_all.bytes or measure().bytes > most.bytes):
        return f"it took more than {most.bytes >> 20} MiB of the disk"
    if gone.files > most.files and (gone.files > nearly_all.files or measure().files > most.files):
        return f"it made more than {most.files} files"
    return ""


def _read_room(folder: Path) -> Room:
    status = os.statvfs(folder)
    return Room(status.f_bavail * status.f_frsize, status.f_favail)


def _measure(folder: Path) -> Room:
    """Count what is in a folder while somebody else writes there: du follows no link."""
    found = []
    for unit in ("--block-size=1", "--inodes"):
        done = subprocess.run(
            ["/usr/bin/du", "--summarize", "--one-file-system", unit, "--", str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,  # what vanishes meanwhile makes it fail, and it counts the rest
        )
        found.append(int(done.stdout.split()[0]) if done.stdout else 0)
    return Room(*found)


def _python(module: str) -> list[str]:
    return [sys.executable, "-I", "-m", f"t3_backup.autoupdate.programs.{module}"]
