"""Log in to a T3 server as a browser does.

Mint a credential, exchange it for a cookie, check the cookie. Nothing less shows that people can
log in: a server whose pairing is broken goes on answering 200 to everything else. Which endpoint
takes the credential differs from version to version; the 404 of one that is not there does not use
the credential up.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp

from t3_backup.errors import Failure
from t3_backup.t3 import port_owner, program
from t3_backup.t3.endpoints import COOKIE, HOST, PAIRING_PATHS, SESSION_PATH, STEP_SECONDS
from t3_backup.text import printable

_LIMIT_BYTES = 64 << 10  # of an answer, and of what the command prints
_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,512}")
_END_S = 2.0
_MINT = "t3 auth pairing create"  # as people type it


class PairingFailed(Failure):
    """Nobody can log in, or at least not with this credential."""

    def __init__(self, step: str, reason: str) -> None:
        """`step` is mint, exchange or session."""
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


def pair(t3: Path, base_dir: Path, port: int, seconds: float = STEP_SECONDS) -> str:
    """Log in as the owner of `base_dir`; return the endpoint that took the credential.

    Each step may take so many seconds. Raises PairingFailed.
    """
    return asyncio.run(_pair(t3, base_dir, port, seconds))


async def _pair(t3: Path, base_dir: Path, port: int, seconds: float) -> str:
    credential = await _mint_credential(t3, base_dir, seconds)
    _check_listener(port)
    limit = aiohttp.ClientTimeout(total=seconds)
    # No cookie of an earlier answer, no proxy of the environment, no connection that an earlier
    # answer has spoilt, and nothing is unpacked: a small answer stays one.
    async with aiohttp.ClientSession(
        f"http://{HOST}:{port}",
        timeout=limit,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(force_close=True),
        trust_env=False,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    ) as client:
        endpoint, cookie = await _exchange_credential(client, credential)
        status, body, _ = await _request(
            client, "session", "GET", SESSION_PATH, headers={"Cookie": f"{COOKIE}={cookie}"}
        )
        if status != 200:
            raise PairingFailed("session", f"GET {SESSION_PATH} answered {status}")
        if _parse_object("session", body).get("authenticated") is not True:
            why = "says that the new cookie is not authenticated"
            raise PairingFailed("session", f"GET {SESSION_PATH} {why}")
        return endpoint


async def _mint_credential(t3: Path, base_dir: Path, seconds: float) -> str:
    """Have T3 make a credential that logs one browser in, without a server.

    Raises PairingFailed.
    """
    line = program.mint_command(t3, base_dir)
    nothing, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *line, stdin=nothing, stdout=pipe, stderr=pipe, start_new_session=True
        )
    except OSError as error:
        raise PairingFailed("mint", f"{t3}: {error.strerror}") from None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            out, said = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            code = await process.wait()
    except TimeoutError:
        raise PairingFailed("mint", f"{_MINT} did not end within {seconds:g} s") from None
    finally:
        await _end_process(process)
    if code != 0:  # T3 says what is wrong on its standard output
        why = _first_line(out) or _first_line(said) or "no reason is given"
        raise PairingFailed("mint", f"{_MINT} ended with {code}: {why}")
    if len(out) > _LIMIT_BYTES:
        raise PairingFailed("mint", f"{_MINT} printed more than {_LIMIT_BYTES} bytes")
    credential = _parse_object("mint", out).get("credential")
    if not isinstance(credential, str) or not _CREDENTIAL.fullmatch(credential):
        raise PairingFailed("mint", f"{_MINT} printed no credential")
    return credential


def _check_listener(port: int) -> None:
    """Raise PairingFailed unless the owner's server listens: none else may hear."""
    try:
        found = port_owner.listener_uids(port)
    except (OSError, ValueError) as error:
        why = f"it can't be checked who listens on port {port}: {error}"
        raise PairingFailed("exchange", why) from None
    if not found:
        raise PairingFailed("exchange", f"POST {PAIRING_PATHS[0]}: nobody listens on port {port}")
    others = [uid for uid in found if uid not in (os.geteuid(), 0)]
    if others:
        who = f"it is uid {others[0]} who listens on port {port}"
        raise PairingFailed("exchange", f"{who}, and is not given the credential")


async def _exchange_credential(client: aiohttp.ClientSession, credential: str) -> tuple[str, str]:
    """Find the endpoint that takes the credential, by the first answer that is no 404.

    Return it, and the cookie it sets.
    """
    for endpoint in PAIRING_PATHS:
        status, body, cookies = await _request(
            client, "exchange", "POST", endpoint, json={"credential": credential}
        )
        if status == 404:
            continue
        if status != 200:
            raise PairingFailed("exchange", f"POST {endpoint} answered {status}")
        if _parse_object("exchange", body).get("authenticated") is not True:
            why = "answered 200 and does not say authenticated"
            raise PairingFailed("exchange", f"POST {endpoint} {why}")
        if not cookies.get(COOKIE):
            raise PairingFailed("exchange", f"POST {endpoint} set no cookie {COOKIE}")
        return endpoint, cookies[COOKIE]
    none = f"there is none of {', '.join(PAIRING_PATHS)}"
    raise PairingFailed("exchange", f"{none}: this version pairs by another name")


async def _request(
    client: aiohttp.ClientSession, step: str, method: str, path: str, **how: Any
) -> tuple[int, bytes, dict[str, str]]:
    """Send one request; return status, body and cookies of its answer, within limits.

    Raises PairingFailed.
    """
    what = f"{method} {path}"
    try:
        async with client.request(method, path, allow_redirects=False, **how) as answer:
            body = b""
            while more := await answer.content.read(_LIMIT_BYTES + 1 - len(body)):
                body += more
            if len(body) > _LIMIT_BYTES:
                raise PairingFailed(step, f"{what} answered with more than {_LIMIT_BYTES} bytes")
            return answer.status, body, _parse_cookies(answer.headers.getall("Set-Cookie", []))
    except TimeoutError:
        raise PairingFailed(step, f"{what} did not answer in time") from None
    except aiohttp.ClientConnectorError as error:
        why = f"no connection to port {error.port}: {os.strerror(error.os_error.errno or 0)}"
        raise PairingFailed(step, f"{what}: {why}") from None
    except (aiohttp.ClientError, ValueError, OSError) as error:
        why = _first_line(str(error).encode()) or type(error).__name__
        raise PairingFailed(step, f"{what}: {why}") from None


def _parse_cookies(lines: Sequence[str]) -> dict[str, str]:
    """Read cookies by name, each as it came: that is how a browser gives it back."""
    found: dict[str, str] = {}
    for line in lines:
        try:
            found |= {name: morsel.coded_value for name, morsel in SimpleCookie(line).items()}
        except CookieError:
            continue
    return found


def _parse_object(step: str, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise PairingFailed(step, f"no JSON, but {_first_line(text)!r}") from None
    if not isinstance(value, dict):
        raise PairingFailed(step, f"no object, but {_first_line(text)!r}")
    return value


async def _read(stream: asyncio.StreamReader) -> bytes:
    """Read all of it and keep the first bytes, and one more where there are more."""
    kept = b""
    while data := await stream.read(_LIMIT_BYTES):
        kept += data[: _LIMIT_BYTES + 1 - len(kept)]
    return kept


async def _end_process(process: asyncio.subprocess.Process) -> None:
    """End a process and whatever it has started, and let go of its pipes."""
    assert process.stdout is not None
    assert process.stderr is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await asyncio.gather(_read(process.stdout), _read(process.stderr), process.wait())


def _first_line(text: bytes) -> str:
    """Take the first line that says something, fit to be shown."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[0], 300) if lines else ""
