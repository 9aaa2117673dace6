"""Build the sandbox of a trial.

It is a unit with a user, a network and a root of its own, with what Node and Python need. The root
is made for each trial, since `TemporaryFileSystem=/` does nothing, and says nothing, beside
DynamicUser=: that implies ProtectSystem=strict, which has the host's own root in that place.
`trial` looks for MARK, and does not begin without it.
"""

from __future__ import annotations

import os
from pathlib import Path

from t3_backup.autoupdate.gate.steps import MARK
from t3_backup.autoupdate.package_tree import remove_tree
from t3_backup.system import transient_unit
from t3_backup.t3.files import STATE_IN_BASE

_PREFIX = "t3-gate-"
# where systemd keeps the folders of transient users (systemd.exec(5), DynamicUser=)
_PRIVATE = Path("/var/lib/private")
_PUBLIC = Path("/var/lib")
_FOLDERS = ("dev", "etc", "proc", "run", "tmp", "usr", "var", "var/lib", "var/tmp")
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # into /usr
_UIDS = range(61184, 65520)  # of transient users; Node wants a name for whichever it becomes
_REFUSED_CALLS = (
    "@privileged @debug @keyring @mount @raw-io @reboot @swap @module @cpu-emulation @obsolete"
)
_FILE_BYTES = 4 << 30  # how much greater than what it was given a file may become


def unit_name(user: str | None) -> str:
    """Name the unit and the folder of an account's trial, or of an empty state's.

    Whatever characters the account's own name has, this is a valid one.
    """
    return f"{_PREFIX}{'empty' if user is None else user.encode().hex()}"


def home_dir(name: str) -> Path:
    """Say where its folder is, as the candidate sees it."""
    return _PUBLIC / name


def build_root(name: str) -> Path:
    """Make the sandbox anew, and say where to put its database. Raises Failure and OSError."""
    remove_root(name)
    _PRIVATE.mkdir(mode=0o700, exist_ok=True)
    state = _PRIVATE / name / STATE_IN_BASE
    for folder in (_PRIVATE / name, state.parent):
        folder.mkdir(mode=0o700)  # systemd gives it all to the transient user when the unit starts
    root = _root(name)
    root.mkdir()
    for folder in (root, *(root / part for part in _FOLDERS)):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    for link in _LINKS:
        if Path("/", link).is_symlink():
            (root / link).symlink_to(os.readlink(Path("/", link)))
    users = "".join(f"t3:x:{uid}:{uid}::{home_dir(name)}:/bin/sh\n" for uid in _UIDS)
    files = {"etc/passwd": users, "etc/hosts": "127.0.0.1 localhost\n", str(MARK)[1:]: ""}
    for path, text in files.items():
        (root / path).write_text(text)
        (root / path).chmod(0o644)
    return state


def unit_properties(name: str, program: Path, given: int) -> tuple[str, ...]:
    """List the properties of the unit for data of `given` bytes."""
    # For a caller that was killed. What is mounted in the sandbox can't be removed from in there.
    enter, paths = "/usr/bin/nsenter --mount=/proc/1/ns/mnt", " ".join(map(str, _paths(name)))
    return (
        "DynamicUser=yes",
        f"StateDirectory={name}",
        "StateDirectoryMode=0700",
        f"WorkingDirectory={home_dir(name)}",
        f"RootDirectory={_root(name)}",
        "RootDirectoryStartOnly=yes",
        "MountAPIVFS=no",
        f"BindReadOnlyPaths=/usr -/etc/alternatives -/etc/ld.so.cache {program}",
        "TemporaryFileSystem=/dev/shm:ro /run:ro",  # the first is the machine's own else
        # where systemd 257 has the sockets of the journal else
        "InaccessiblePaths=-+/sys -+/run/systemd/journal",
        "PrivateNetwork=yes",
        "PrivateIPC=yes",
        "PrivateDevices=yes",
        "PrivateTmp=yes",
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
        "UMask=0077",
        "MemoryMax=2G",
        "MemorySwapMax=0",
        "TasksMax=256",
        "LimitCORE=0",
        f"LimitFSIZE={_FILE_BYTES + 4 * given}",
        # whatever it has left running; the server itself was asked to stop by then
        "KillSignal=SIGKILL",
        "Nice=10",
        f"ExecStopPost=+{enter} -- /usr/bin/rm -rf -- {paths}",
    )


def remove_root(name: str) -> None:
    """Remove what a trial left; its unit must be gone. Raises Failure and OSError."""
    for path in _paths(name):
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            remove_tree(path)


def remove_leftovers() -> None:
    """End and remove the trials of a command that was killed. Raises Failure and OSError."""
    left = [path for where in (_PRIVATE, _PUBLIC) for path in where.glob(f"{_PREFIX}*")]
    if left:
        transient_unit.end(f"{_PREFIX}*.service")
    for name in {path.stem for path in left}:
        remove_root(name)


def _root(name: str) -> Path:
    return _PRIVATE / f"{name}.root"


def _paths(name: str) -> tuple[Path, ...]:
    """List all paths of a sandbox; the second is a link of systemd's to the first."""
    return (_PRIVATE / name, _PUBLIC / name, _root(name))
