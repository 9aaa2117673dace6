"""Build a cell: a unit with a user, a network and a root of its own, to run foreign programs in.

Its root has what Node and Python need, one folder to write to, and what it is given besides. It is
made for each use, since `TemporaryFileSystem=/` does nothing, and says nothing, beside
DynamicUser=: that implies ProtectSystem=strict, which has the host's own root in that place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from t3_backup.autoupdate.programs.package_tree import remove_tree
from t3_backup.system import transient_unit

# where systemd keeps the folders of transient users (systemd.exec(5), DynamicUser=)
PRIVATE = Path("/var/lib/private")
_PUBLIC = Path("/var/lib")
_FOLDERS = ("dev", "etc", "proc", "run", "tmp", "usr", "var", "var/lib", "var/tmp")
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # into /usr
_UIDS = range(61184, 65520)  # of transient users; Node wants a name for whichever it becomes
_REFUSED_CALLS = (
    "@privileged @debug @keyring @mount @raw-io @reboot @swap @module @cpu-emulation @obsolete"
)


def home_dir(name: str) -> Path:
    """Say where its folder is, as its programs see it."""
    return _PUBLIC / name


def build_cell(name: str, files: Mapping[str, str]) -> Path:
    """Make a cell anew, with these files in its root, and return its folder, which is empty.

    Raises Failure and OSError.
    """
    remove_cell(name)
    PRIVATE.mkdir(mode=0o700, exist_ok=True)
    folder, root = PRIVATE / name, root_dir(name)
    folder.mkdir(mode=0o700)  # systemd gives it to the transient user when the unit starts
    root.mkdir()
    for inner in (root, *(root / part for part in _FOLDERS)):
        inner.mkdir(exist_ok=True)
        inner.chmod(0o755)
    for link in _LINKS:
        if Path("/", link).is_symlink():
            (root / link).symlink_to(os.readlink(Path("/", link)))
    users = "".join(f"t3:x:{uid}:{uid}::{home_dir(name)}:/bin/sh\n" for uid in _UIDS)
    known = {"etc/passwd": users, "etc/hosts": "127.0.0.1 localhost\n"}
    for path, text in (known | dict(files)).items():
        (root / path).write_text(text)
        (root / path).chmod(0o644)
    return folder


def cell_properties(name: str, read_only: Sequence[str | Path], file_bytes: int) -> tuple[str, ...]:
    """List the properties of a cell's unit.

    `read_only` are the paths of the machine that are in it; no file may become greater than
    `file_bytes`.
    """
    shown = " ".join(map(str, ("/usr", "-/etc/alternatives", "-/etc/ld.so.cache", *read_only)))
    return (
        "DynamicUser=yes",
        f"StateDirectory={name}",
        "StateDirectoryMode=0700",
        f"WorkingDirectory={home_dir(name)}",
        f"RootDirectory={root_dir(name)}",
        "RootDirectoryStartOnly=yes",
        "MountAPIVFS=no",
        f"BindReadOnlyPaths={shown}",
        "TemporaryFileSystem=/dev/shm:ro /run:ro",  # the first is the machine's own else
        # where systemd 257 has the sockets of the journal else
        "InaccessiblePaths=-+/sys -+/run/systemd/journal",
        "PrivateNetwork=yes",
        "PrivateIPC=yes",
        "PrivateDevices=yes",
        "ProtectProc=invisible",
        "ProcSubset=pid",
        "ProtectHostname=yes",
        "ProtectClock=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectControlGroups=yes",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "LockPersonality=yes",
        "KeyringMode=private",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        f"SystemCallFilter=~{_REFUSED_CALLS}",
        "SystemCallFilter=~process_vm_readv process_vm_writev",
        "SystemCallFilter=capset",  # setpriv(1) sets what it has anew, which is nothing
        "SystemCallErrorNumber=EPERM",
        "MemoryMax=2G",
        "MemorySwapMax=0",
        "TasksMax=256",
        "LimitCORE=0",
        f"LimitFSIZE={file_bytes}",
    )


def remove_cell(name: str) -> None:
    """Remove what a cell left; its unit must be gone. Raises Failure and OSError."""
    for path in cell_paths(name):
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            remove_tree(path)


def remove_cells(prefix: str) -> bool:
    """End and remove each cell of a command that was killed; tell whether there was any.

    Raises Failure and OSError.
    """
    left = [path for where in (PRIVATE, _PUBLIC) for path in where.glob(f"{prefix}*")]
    if left:
        transient_unit.end(f"{prefix}*.service")
    for name in {path.stem for path in left}:
        remove_cell(name)
    return bool(left)


def cell_paths(name: str) -> tuple[Path, ...]:
    """List all paths of a cell; the second is a link of systemd's to the first."""
    return (PRIVATE / name, _PUBLIC / name, root_dir(name))


def root_dir(name: str) -> Path:
    """Say where its root is."""
    return PRIVATE / f"{name}.root"
