"""Run a command as a transient unit of systemd: as another user, in a sandbox of its own, with limits that its end is held to.

systemd starts it, outside of whatever sandbox this process is in, by systemd-run(1) and without a shell. What it prints is taken
up to a limit, and not trusted.
"""

from __future__ import annotations

import os
import secrets
import selectors
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from t3_backup import accounts
from t3_backup.errors import Failure

_LIMIT_BYTES = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # where systemd-run looks for a program
_CHUNK_BYTES = 1 << 16
_STOP_S = 60
_GRACE_S = 15.0  # for systemd to end it by its own limit, before it is stopped from here

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

    code: int
    out: str
    err: str
    timed_out: bool = False


def run(
    argv: Sequence[str], *, name: str, properties: Sequence[str], seconds: float, limit_bytes: int = _LIMIT_BYTES, stdin: str = ""
) -> Done:
    """Run `argv` as the unit `name`.service with these properties, for so many seconds at most; afterwards it is gone.

    Raises Failure where systemd can't be asked, or where the unit outlives its end.
    """
    unit = f"{name}.service"
    line = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec", f"--unit={unit}"]
    line += [f"--property={one}" for one in (*properties, f"RuntimeMaxSec={seconds:.3f}")]
    try:
        # In a group of its own: a Ctrl-C is ours to hear.
        process = subprocess.Popen(
            [*line, "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            env={"PATH": _PATH, "LANG": "C.UTF-8"},
        )
    except OSError as error:
        raise Failure(f"systemd-run: {error.strerror}") from None
    began = time.monotonic()
    with process:
        out, err, ended = _read(process, stdin.encode(), began + seconds + _GRACE_S, limit_bytes)
        if not ended:
            _stop(unit)
            process.kill()
        code = process.wait()
    timed_out = not ended or time.monotonic() - began >= seconds
    return Done(code, out, err, timed_out)


def as_owner(user: str, argv: Sequence[str], seconds: float, *, properties: Sequence[str] = ()) -> Done:
    """Run `argv` as an account's owner, with nothing of this process's environment. Raises Failure."""
    account = accounts.find(user)
    environment = f"Environment=HOME={account.home} USER={account.user} LOGNAME={account.user}"
    whole = (f"User={account.user}", environment, f"WorkingDirectory=-{account.home}", *_OF_AN_OWNER, *properties)
    return run(argv, name=f"t3-as-{account.user}-{secrets.token_hex(4)}", properties=whole, seconds=seconds)


def _read(process: subprocess.Popen[bytes], given: bytes, until: float, limit: int) -> tuple[str, str, bool]:
    """What it prints on both streams, each up to the limit, and whether it ended in time."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(given)
        process.stdin.close()
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = until - time.monotonic()
            if left <= 0:
                break
            for key, _ in selector.select(left):
                data = os.read(key.fd, _CHUNK_BYTES)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                taken = kept[key.fileobj]  # type: ignore[index]
                taken += data[: max(0, limit - len(taken))]
        ended = not selector.get_map()
    texts = [bytes(taken).decode(errors="replace") for taken in kept.values()]
    return texts[0], texts[1], ended


def _stop(unit: str) -> None:
    """Raises Failure where it goes on."""
    for words in (["systemctl", "kill", "--signal=SIGKILL", unit], ["systemctl", "stop", unit]):
        done = subprocess.run(words, capture_output=True, text=True, timeout=_STOP_S, check=False)
    if done.returncode != 0 and "not loaded" not in done.stderr:
        raise Failure(f"{unit} does not end: {done.stderr.strip()}")
