"""The gate: a version of T3 is tried where it can do no harm, on an empty state and on a copy of each account's newest snapshot.

Each trial is a transient unit with a user, a network and a file system of its own: no home, no store, no other account's copy, no
credential, and nothing but its own folder to write to. The folder goes with the unit; what a power cut leaves goes with `sweep`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3_backup.bump import transient

EMPTY = "empty"  # the subject of a trial without data; no user's name has the form of the unit's that is made of it
_PRIVATE = Path("/var/lib/private")  # where systemd keeps the folders of transient users (systemd.exec(5), DynamicUser=)
_PUBLIC = Path("/var/lib")
_PREFIX = "t3-gate-"
# All of them are empty in there, but for what is shown of /etc, and the program.
_HIDDEN = ("/home", "/root", "/run", "/var", "/srv", "/opt", "/mnt", "/media", "/boot", "/etc")
_SHOWN = ("alternatives", "ld.so.cache", "localtime")
_PORT = 4773  # on a loopback of its own
_SLACK_S = 240  # for all steps of a trial but its watch: start, login, stop, reading of the data
_LIMIT_BYTES = 256 << 10
_LINES, _CHARS = 40, 500


@dataclass(frozen=True)
class Trial:
    """What a candidate did with one state."""

    subject: str  # a user, or EMPTY
    passed: bool
    step: str = ""  # as in `trial`, or `gate` where there was no verdict at all
    reason: str = ""
    endpoint: str | None = None
    probe: int | None = None
    level_before: int | None = None
    level_after: int | None = None
    log: tuple[str, ...] = ()


def properties(name: str, program: Path) -> tuple[str, ...]:
    """The sandbox. Its whole file system is empty but for what is named here."""
    return (
        "DynamicUser=yes",
        f"StateDirectory={name}",
        "StateDirectoryMode=0700",
        f"WorkingDirectory={_PRIVATE / name}",
        f"Environment=HOME={_PRIVATE / name} TMPDIR={_PRIVATE / name}",
        "ProtectSystem=strict",
        f"TemporaryFileSystem={' '.join(f'{folder}:ro' for folder in _HIDDEN)}",
        f"BindReadOnlyPaths={' '.join(f'-/etc/{name}' for name in _SHOWN)} {program}",
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
        "SystemCallFilter=~@privileged @debug @keyring @mount @raw-io @reboot @swap @module @cpu-emulation @obsolete",
        "SystemCallErrorNumber=EPERM",
        "UMask=0077",
        "MemoryMax=2G",
        "MemorySwapMax=0",
        "TasksMax=256",
        "LimitCORE=0",
        "Nice=10",
        f"ExecStopPost=-+/usr/bin/rm -rf -- {_PRIVATE / name} {_PUBLIC / name}",
    )


def examine(
    program: Path,
    accounts: Sequence[str],
    write_snapshot: Callable[[str, Path], bool],
    *,
    watch_seconds: int,
    say: Callable[[str], None],
) -> list[Trial]:
    """Try the version whose prefix is `program`: on nothing, then on each account's data; the first that fails is the last.

    `write_snapshot` writes an account's newest verified snapshot to a new file; False where there is none. Raises Failure, OSError.
    """
    trials: list[Trial] = []
    for user in (None, *accounts):
        say(f"gate: trying {'an empty state' if user is None else f'a copy of the data of {user}'}")
        trial = _try(program, user or EMPTY, None if user is None else write_snapshot, watch_seconds)
        if trial is not None:
            trials.append(trial)
            if not trial.passed:
                break
    return trials


def _try(program: Path, subject: str, write_snapshot: Callable[[str, Path], bool] | None, watch_seconds: int) -> Trial | None:
    """One trial; None where there is no snapshot to try it on."""
    name = f"{_PREFIX}{subject.encode().hex()}" if write_snapshot else f"{_PREFIX}{EMPTY}"
    folder = _PRIVATE / name
    _remove(name)
    try:
        # systemd gives the whole folder to the transient user when the unit starts.
        (folder / "userdata").mkdir(mode=0o700, parents=True)
        if write_snapshot is not None and not write_snapshot(subject, folder / "userdata" / "state.sqlite"):
            return None
        line = [sys.executable, "-I", "-m", "t3_backup.bump.trial", f"--t3={program}/bin/t3", f"--base-dir={folder}"]
        line += [f"--port={_PORT}", f"--watch={watch_seconds}"]
        done = transient.run(
            line, name=name, properties=properties(name, program), seconds=_SLACK_S + watch_seconds, limit_bytes=_LIMIT_BYTES
        )
        return read(subject, done)
    finally:
        _remove(name)


def read(subject: str, done: transient.Done) -> Trial:
    """The verdict of a trial, of which not a word is trusted: a type that is wrong is no verdict, and no verdict is a failure."""
    if done.timed_out:
        return Trial(subject, passed=False, step="gate", reason="the trial took too long")
    try:
        value = json.loads(done.out)
        passed = value["passed"] is True
        if passed != (done.code == 0):
            raise ValueError("the exit status says something else")
        return Trial(
            subject,
            passed,
            _text(value["step"]) if not passed else "",
            _text(value["reason"]) if not passed else "",
            None if value["endpoint"] is None else _text(value["endpoint"]),
            _number(value["probe"]),
            _number(value["level_before"]),
            _number(value["level_after"]),
            tuple(_text(line) for line in _list(value["log"])[:_LINES]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        said = (done.err.strip().splitlines() or [""])[-1]
        return Trial(subject, passed=False, step="gate", reason=f"no verdict came out (exit status {done.code}): {_text(said)}")


def sweep() -> None:
    """Remove what trials that were cut off have left. Raises OSError."""
    for where in (_PRIVATE, _PUBLIC):
        for path in where.glob(f"{_PREFIX}*"):
            _remove(path.name)


def _remove(name: str) -> None:
    public = _PUBLIC / name
    if public.is_symlink():
        public.unlink()
    if (_PRIVATE / name).is_dir():
        shutil.rmtree(_PRIVATE / name)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return "".join(char if char.isprintable() else "?" for char in value)[:_CHARS]


def _number(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise TypeError("no number")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value
