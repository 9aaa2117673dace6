"""Log in to a T3 server as a browser does: mint a credential as the owner, exchange it for a cookie, see that the cookie is good.

Nothing less tells whether anybody can: a server whose pairing is broken goes on answering 200 to all else. Which endpoint takes the
credential differs from version to version; the absent one's 404 does not use the credential up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import pwd
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, NoReturn

import aiohttp

from t3_backup.errors import EXIT_OK, Failure, UsageError
from t3_backup.t3 import port_owner
from t3_backup.text import printable

ENDPOINTS = ("/api/auth/browser-session", "/api/auth/bootstrap")  # from 0.0.25; until 0.0.24
SESSION = "/api/auth/session"
COOKIE = "t3_session"
SECONDS = 15.0  # for each step
_LIMIT_BYTES = 64 << 10  # of an answer, and of what the command prints
_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,512}")
_END_S = 2.0
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Paired:
    """It worked."""

    endpoint: str  # which took the credential


class PairingFailed(Failure):
    """Nobody can log in, or at least not by this credential."""

    def __init__(self, step: str, reason: str) -> None:
        """`step` is mint, exchange or session."""
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


def pair(t3: Path, base_dir: Path, port: int, seconds: float = SECONDS) -> Paired:
    """Do it; each step may take so many seconds. To be called as the owner of `base_dir`. Raises PairingFailed."""
    return asyncio.run(_pair(t3, base_dir, port, seconds))


async def _pair(t3: Path, base_dir: Path, port: int, seconds: float) -> Paired:
    credential = await mint(t3, base_dir, seconds)
    _must_be_ours(port)
    limit = aiohttp.ClientTimeout(total=seconds)
    # No cookie of an earlier answer, no proxy of the environment, no connection that an earlier answer has spoilt, and nothing is
    # unpacked: a small answer stays one.
    async with aiohttp.ClientSession(
        f"http://{HOST}:{port}",
        timeout=limit,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(force_close=True),
        trust_env=False,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    ) as client:
        endpoint, cookie = await _exchange(client, credential)
        status, body, _ = await _ask(client, "session", "GET", SESSION, headers={"Cookie": f"{COOKIE}={cookie}"})
        if status != 200:
            raise PairingFailed("session", f"GET {SESSION} answered {status}")
        if _document("session", body).get("authenticated") is not True:
            raise PairingFailed("session", f"GET {SESSION} says that the new cookie is not authenticated")
        return Paired(endpoint)


async def mint(t3: Path, base_dir: Path, seconds: float) -> str:
    """A credential that logs one browser in; the command writes it to the database, server or not. Raises PairingFailed."""
    line = [str(t3), "auth", "pairing", "create", "--base-dir", str(base_dir), "--ttl", "5m", "--json"]
    nothing, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*line, stdin=nothing, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:
        raise PairingFailed("mint", f"{t3}: {error.strerror}") from None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            out, said = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await process.wait()
    except TimeoutError:
        raise PairingFailed("mint", f"t3 auth pairing create did not end within {seconds:g} s") from None
    finally:
        await _end(process)
    if code != 0:  # T3 says what is wrong on its standard output
        raise PairingFailed(
            "mint", f"t3 auth pairing create ended with {code}: {_line(out) or _line(said) or 'no reason is given'}"
        )
    if len(out) > _LIMIT_BYTES:
        raise PairingFailed("mint", f"t3 auth pairing create printed more than {_LIMIT_BYTES} bytes")
    credential = _document("mint", out).get("credential")
    if not isinstance(credential, str) or not _CREDENTIAL.fullmatch(credential):
        raise PairingFailed("mint", "t3 auth pairing create printed no credential")
    return credential


def _must_be_ours(port: int) -> None:
    """Whoever gets the credential can log in with it: it must be the owner's server that listens. Raises PairingFailed."""
    try:
        found = port_owner.listener_uids(port)
    except (OSError, ValueError) as error:
        raise PairingFailed("exchange", f"nobody can tell who listens on port {port}: {error}") from None
    if not found:
        raise PairingFailed("exchange", f"POST {ENDPOINTS[0]}: nobody listens on port {port}")
    others = [uid for uid in found if uid not in (os.geteuid(), 0)]
    if others:
        raise PairingFailed("exchange", f"it is uid {others[0]} who listens on port {port}, and is not given the credential")


async def _exchange(client: aiohttp.ClientSession, credential: str) -> tuple[str, str]:
    """The endpoint that took the credential, and the value of the cookie. The first answer that is no 404 is the verdict."""
    for endpoint in ENDPOINTS:
        status, body, cookies = await _ask(client, "exchange", "POST", endpoint, json={"credential": credential})
        if status == 404:
            continue
        if status != 200:
            raise PairingFailed("exchange", f"POST {endpoint} answered {status}")
        if _document("exchange", body).get("authenticated") is not True:
            raise PairingFailed("exchange", f"POST {endpoint} answered 200 and does not say authenticated")
        if not cookies.get(COOKIE):
            raise PairingFailed("exchange", f"POST {endpoint} set no cookie {COOKIE}")
        return endpoint, cookies[COOKIE]
    raise PairingFailed("exchange", f"there is none of {', '.join(ENDPOINTS)}: this version pairs by another name")


async def _ask(client: aiohttp.ClientSession, step: str, method: str, path: str, **how: Any) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and cookies of one answer, within limits of time and size. Raises PairingFailed."""
    try:
        async with client.request(method, path, allow_redirects=False, **how) as answer:
            body = await answer.content.read(_LIMIT_BYTES + 1)
            while len(body) <= _LIMIT_BYTES and (more := await answer.content.read(_LIMIT_BYTES + 1 - len(body))):
                body += more
            if len(body) > _LIMIT_BYTES:
                raise PairingFailed(step, f"{method} {path} answered with more than {_LIMIT_BYTES} bytes")
            return answer.status, body, _cookies(answer.headers.getall("Set-Cookie", []))
    except TimeoutError:
        raise PairingFailed(step, f"{method} {path} did not answer in time") from None
    except aiohttp.ClientConnectorError as error:
        why = os.strerror(error.os_error.errno or 0)
        raise PairingFailed(step, f"{method} {path}: no connection to port {error.port}: {why}") from None
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise PairingFailed(step, f"{method} {path}: {_line(str(error).encode()) or type(error).__name__}") from None


def _cookies(lines: Sequence[str]) -> dict[str, str]:
    """By name, each as it came: that is how a browser gives it back."""
    found: dict[str, str] = {}
    for line in lines:
        try:
            found |= {name: morsel.coded_value for name, morsel in SimpleCookie(line).items()}
        except CookieError:
            continue
    return found


def _document(step: str, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise PairingFailed(step, f"no JSON, but {_line(text)!r}") from None
    if not isinstance(value, dict):
        raise PairingFailed(step, f"no object, but {_line(text)!r}")
    return value


async def _read(stream: asyncio.StreamReader) -> bytes:
    """All of it, of which the first bytes are kept, and one more where there are more."""
    kept = b""
    while data := await stream.read(_LIMIT_BYTES):
        kept += data[: _LIMIT_BYTES + 1 - len(kept)]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it and whatever it has started, and let go of its pipes."""
    assert process.stdout is not None
    assert process.stderr is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await asyncio.gather(_read(process.stdout), _read(process.stderr), process.wait())


def _line(text: bytes) -> str:
    """The first line that says something, fit to be shown."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[0], 300) if lines else ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(UsageError.exit_code)


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:  # neither is nan
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is no time limit in seconds")


def _objection(base_dir: Path, words: Sequence[str]) -> str:
    """Why it can't be called so, or how root is to call it instead; empty where it may go on.

    The mint would begin a new state where there is none. What root makes beside a database its owner can't open.
    """
    try:
        owner = (base_dir / ".").stat().st_uid
    except OSError as error:
        return f"--base-dir {base_dir}: {error.strerror}"
    if os.geteuid() != 0 or owner == 0:
        return ""
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return f"{base_dir} belongs to {name}, whom what root writes there would lock out: runuser -u {name} -- {shlex.join(words)}"


def main(argv: Sequence[str] | None = None) -> int:
    """`t3-pair`: exit status 0 where one can log in, 1 where not, 2 for wrong use."""
    parser = _Parser(prog="t3-pair", description="Log in to a T3 server as a browser does, as the owner of its state.")
    parser.add_argument("--t3", type=Path, required=True, metavar="BIN", help="the program that mints the credential")
    parser.add_argument("--base-dir", type=Path, required=True, metavar="DIR", help="where the server has its state (~/.t3)")
    parser.add_argument("--port", type=_port, required=True, metavar="N", help="where it listens on 127.0.0.1")
    parser.add_argument("--seconds", type=_seconds, default=SECONDS, metavar="S", help=f"for each step ({SECONDS:g})")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line")
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    if why := _objection(args.base_dir, [parser.prog, *words]):
        print(f"{parser.prog}: {why}", file=sys.stderr)
        return UsageError.exit_code
    try:
        endpoint = pair(args.t3, args.base_dir, args.port, args.seconds).endpoint
        document: dict[str, Any] = {"paired": True, "endpoint": endpoint}
        text, code = f"paired by {endpoint}", EXIT_OK
    except PairingFailed as failed:
        document = {"paired": False, "step": failed.step, "reason": failed.reason}
        text, code = f"not paired: {failed}", PairingFailed.exit_code
    print(json.dumps(document) if args.json else text)
    return code


if __name__ == "__main__":
    sys.exit(main())
