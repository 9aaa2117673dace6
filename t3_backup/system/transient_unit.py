"""Run a command as a transient unit of systemd, in a sandbox and with limits.

systemd starts it, outside of whatever sandbox this process is in, by systemd-run(1), which waits
for it over the system bus, and without a shell. What it prints is taken up to a limit, and not
trusted. Only a caller that is killed leaves its unit behind; `end` is for those.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from t3_backup import accounts
from t3_backup.errors import Failure, SystemdUnanswered
from t3_backup.system.process import Stream, start_in_own_group
from t3_backup.system.systemd import BOOTED, PATH, call_systemctl, is_unanswered
from t3_backup.text import quote

_LIMIT_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_WATCH_S = 0.5
_GRACE_S = 15.0  # for systemd to end it by its own limit, before it is stopped from here
_ENVIRONMENT = {"PATH": PATH, "LANG": "C.UTF-8"}
_GONE = ("inactive", "failed")
_SYSTEMD_RUN = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec")
_BUS = Path("/run/dbus/system_bus_socket")
_NOT_STARTED = ("Failed to start transient", "Failed to connect to")  # as systemd-run says it
_PAUSES_S = (0.5, 1.0, 2.0, None)  # before an owner's command is asked for again

_OF_AN_OWNER = (
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictSUIDSGID=yes",
    "PrivateTmp=yes",
    "UMask=0077",
    "TasksMax=64",
    "SendSIGHUP=yes",
)


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, and what it printed, up to the limit."""

    code: int  # where systemd could not start it, that of systemd-run(1), which says why in `err`
    out: str
    err: str
    timed_out: bool = False
    stopped_for: str = ""  # what `watch` had against its going on


def run(
    argv: Sequence[str],
    *,
    name: str,
    properties: Sequence[str],
    seconds: float,
    limit_bytes: int = _LIMIT_BYTES,
    stdin: Stream = subprocess.DEVNULL,
    watch: Callable[[], str] = str,
) -> Done:
    """Run `argv` as the unit `name`.service, for so many seconds at most.

    Afterwards it is gone. Its standard input is empty, unless it is given one. `watch` is asked
    twice a second, and ends it by saying why. Raises SystemdUnanswered where systemd can't be asked
    to start it, and Failure where there is no systemd-run(1) or no bus, or where the unit outlives
    its end.
    """
    unit = f"{name}.service"
    process = _start(argv, unit, properties, seconds, stdin)
    began = time.monotonic()
    ended = False
    with process:
        try:
            until = began + seconds + _GRACE_S
            out, err, ended, why = _read(process, until, limit_bytes, watch)
            ended = ended and _has_ended(process)
        finally:
            if not ended:
                process.kill()
                end(unit)
    if process.returncode != 0 and not out and err.startswith(_NOT_STARTED) and is_unanswered(err):
        end(unit)  # it may have been heard
        raise SystemdUnanswered(f"systemd-run: {err.splitlines()[0]}")
    late = time.monotonic() - began >= seconds
    return Done(process.returncode, out, err, late or not (ended or why), why)


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    *,
    name: str,
    properties: Sequence[str],
    seconds: float,
    stdin: Stream = subprocess.DEVNULL,
) -> Iterator[None]:
    """Have `argv` run as the unit `name`.service while the block does; what it prints is lost.

    Raises Failure as `run`.
    """
    with _start(argv, f"{name}.service", properties, seconds, stdin, subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()
            end(f"{name}.service")


def _start(
    argv: Sequence[str],
    unit: str,
    properties: Sequence[str],
    seconds: float,
    stdin: Stream,
    output: Stream = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start systemd-run(1), which waits for the unit. Raises Failure."""
    if not _BUS.exists():
        what = "the system bus, by which units are asked for, does not run"
        raise Failure(f"{what}: systemctl start dbus.socket")
    line = [*_SYSTEMD_RUN, f"--unit={unit}"]
    line += [f"--property={one}" for one in (*properties, f"RuntimeMaxSec={seconds:.3f}")]
    # systemd puts its variables in (systemd.service(5))
    line += ["--", *(word.replace("$", "$$") for word in argv)]
    try:
        return start_in_own_group(line, stdin=stdin, stdout=output, stderr=output, env=_ENVIRONMENT)
    except OSError as error:
        raise Failure(f"systemd-run: {error.strerror}") from None


def as_owner(user: str, argv: Sequence[str], seconds: float) -> Done:
    """Run `argv` as an account's owner, with its own environment.

    It may be asked for again, where systemd did not answer, and is to be harmless then. Raises
    SystemdUnanswered and Failure.
    """
    account = accounts.find(user)
    name, home = account.user, account.home
    environ = {"HOME": home, "USER": name, "LOGNAME": name, **_ENVIRONMENT}
    # nothing of systemd's environment either
    line = ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in environ.items()), *argv]
    properties = (f"User={name}", f"WorkingDirectory=-{home}", *_OF_AN_OWNER)
    for pause in _PAUSES_S:
        unit = f"{_name_of(user)}-{secrets.token_hex(4)}"
        try:
            return run(line, name=unit, properties=properties, seconds=seconds)
        except SystemdUnanswered:
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError  # the last one returns, or raises


def end_owners(user: str) -> None:
    """Kill what `as_owner` runs for an account, or has left behind. Raises Failure."""
    end(f"{_name_of(user)}-*.service")


def _name_of(user: str) -> str:
    return f"t3-as-{user.encode().hex()}"


def end(pattern: str) -> None:
    """Kill the units of this name or pattern, and wait until they are gone.

    Raises Failure where one goes on.
    """
    if not BOOTED.is_dir():
        return  # there are no units
    # A unit that is not there has ended: what the first two say is judged by what is left.
    call_systemctl("kill", "--signal=SIGKILL", pattern, check=False)
    call_systemctl("stop", pattern, check=False)
    try:
        left = call_systemctl("list-units", "--all", "--plain", "--no-legend", "--full", pattern)
    except Failure as failure:
        raise Failure(f"{pattern}: it can't be checked whether it has ended: {failure}") from None
    units = [line.split() for line in left.splitlines()]
    running = [words[0] for words in units if len(words) > 2 and words[2] not in _GONE]
    if running:
        raise Failure(f"{', '.join(running)} does not end: systemctl status {quote(running[0])}")


def _read(
    process: subprocess.Popen[bytes], until: float, limit: int, watch: Callable[[], str]
) -> tuple[str, str, bool, str]:
    """Read both streams, up to the limit each, and tell whether both ended in time.

    The last text is why they were left before that.
    """
    why = ""
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = until - time.monotonic()
            if left <= 0 or (why := watch()):
                break
            for key, _ in selector.select(min(left, _WATCH_S)):
                data = os.read(key.fd, _CHUNK_BYTES)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                taken = kept[key.fileobj]  # type: ignore[index]
                taken += data[: max(0, limit - len(taken))]
        ended = not selector.get_map()
    texts = [bytes(taken).decode(errors="replace") for taken in kept.values()]
    return texts[0], texts[1], ended, why


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait for its end: with its streams closed it is about to."""
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return False
    return True
