"""Log in to a T3 server as a browser does.

Mint a credential, exchange it for a cookie, check the cookie. Nothing less shows that people can
log in: a server whose pairing is broken goes on answering 200 to everything else. Which endpoint
takes the credential, and what the cookie is called, differ from version to version; the 404 of an
endpoint that is not there does not use the credential up.

Each login stays in the database until it ends: `sessions` ends those that are ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from t3_backup.errors import Failure
from t3_backup.t3 import commands, endpoints, port_owner, program
from t3_backup.t3.endpoints import HOST, PAIRING_PATHS, SESSION_PATH
from t3_backup.t3.limits import STEP_SECONDS
from t3_backup.t3.output import redact
from t3_backup.t3.sessions import USER_AGENT
from t3_backup.text import printable

_LIMIT_BYTES = 64 << 10  # of an answer, and of what the command prints
_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,512}")
_FIRST_TRY_S = 2.0
_MINT = "t3 auth pairing create"  # as people type it


class PairingFailed(Failure):
    """Nobody can log in, or at least not with this credential."""

    def __init__(self, step: str, reason: str, *, slow: bool = False) -> None:
        """`step` is mint, exchange or session; `slow`: it only did not end within its time."""
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason
        self.slow = slow


class _Answer(NamedTuple):
    status: int
    body: bytes
    cookies: dict[str, str]


def pair(t3: Path, base_dir: Path, port: int, seconds: float = STEP_SECONDS) -> str:
    """Log in as the owner of `base_dir`; return the endpoint that took the credential.

    Each step may take so many seconds. Raises PairingFailed, without any secret in it.
    """
    return asyncio.run(_Login(port, seconds).log_in(t3, base_dir))


class _Login:
    """One login, and what of it must not be told."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._secrets: list[str] = []  # the credential, then also the cookies

    async def log_in(self, t3: Path, base_dir: Path) -> str:
        credential = await self._mint_credential(t3, base_dir)
        self._check_listener()
        # No cookie of an earlier answer, no proxy of the environment, no connection that an earlier
        # answer has spoilt, and nothing is unpacked: a small answer stays one.
        async with aiohttp.ClientSession(
            f"http://{HOST}:{self._port}",
            timeout=aiohttp.ClientTimeout(total=self._seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(force_close=True),
            trust_env=False,
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT},
        ) as client:
            told = await self._ask_cookie_name(client)
            endpoint, cookies = await self._exchange_credential(client, credential, told)
            await self._check_session(client, cookies)
            return endpoint

    async def _mint_credential(self, t3: Path, base_dir: Path) -> str:
        """Have T3 make a credential that logs one browser in, without a server."""
        try:
            line = program.mint_command(t3, base_dir)
            done = await commands.call(line, self._seconds, _LIMIT_BYTES)
        except TimeoutError:
            raise self._failed(
                "mint", f"{_MINT} did not end within {self._seconds:g} s", slow=True
            ) from None
        except OSError as error:
            raise self._failed("mint", f"{t3}: {error.strerror}") from None
        if done.code != 0:
            why = done.why() or "no reason is given"
            raise self._failed("mint", f"{_MINT} ended with {done.code}: {why}")
        if len(done.out) > _LIMIT_BYTES:
            raise self._failed("mint", f"{_MINT} printed more than {_LIMIT_BYTES} bytes")
        credential = self._parse_object("mint", done.out).get("credential")
        if not isinstance(credential, str) or not _CREDENTIAL.fullmatch(credential):
            raise self._failed("mint", f"{_MINT} printed no credential")
        self._secrets.append(credential)
        return credential

    def _check_listener(self) -> None:
        """Raise PairingFailed unless the owner's server listens: none else may hear."""
        port = self._port
        try:
            found = port_owner.listener_uids(port)
        except (OSError, ValueError) as error:
            why = f"it can't be checked who listens on port {port}: {error}"
            raise self._failed("exchange", why) from None
        if not found:
            why = f"POST {PAIRING_PATHS[0]}: nobody listens on port {port}"
            raise self._failed("exchange", why)
        others = [uid for uid in found if uid not in (os.geteuid(), 0)]
        if others:
            who = f"it is uid {others[0]} who listens on port {port}"
            raise self._failed("exchange", f"{who}, and is not given the credential")

    async def _ask_cookie_name(self, client: aiohttp.ClientSession) -> str | None:
        """Ask what the login cookie is called; None where the server does not say.

        0.0.42 never answers what it is asked in the first moment after it listens, while it
        answers the next request at once. So this one, which changes nothing, is sent again.
        """
        until = time.monotonic() + self._seconds
        limit = _FIRST_TRY_S
        while True:
            left = max(0.1, until - time.monotonic())
            timeout = aiohttp.ClientTimeout(total=min(limit, left))
            try:
                answer = await self._request(
                    client, "exchange", "GET", SESSION_PATH, timeout=timeout
                )
                break
            except PairingFailed as failed:
                if not failed.slow or limit >= left:
                    raise
            limit *= 2
        try:
            said = json.loads(answer.body) if answer.status == 200 else None
        except (ValueError, RecursionError):
            return None
        return endpoints.told_cookie_name(said) if isinstance(said, dict) else None

    async def _exchange_credential(
        self, client: aiohttp.ClientSession, credential: str, told: str | None
    ) -> tuple[str, dict[str, str]]:
        """Find the endpoint that takes the credential, by the first answer that is no 404.

        Return it, and the login cookies that it sets.
        """
        for endpoint in PAIRING_PATHS:
            answer = await self._request(
                client, "exchange", "POST", endpoint, json={"credential": credential}
            )
            self._secrets += filter(None, answer.cookies.values())
            if answer.status == 404:
                continue
            if answer.status != 200:
                raise self._failed("exchange", f"POST {endpoint} answered {answer.status}")
            if self._parse_object("exchange", answer.body).get("authenticated") is not True:
                why = "answered 200 and does not say authenticated"
                raise self._failed("exchange", f"POST {endpoint} {why}")
            if cookies := endpoints.login_cookies(answer.cookies, told):
                return endpoint, cookies
            why = endpoints.no_login_cookie(answer.cookies, told)
            raise self._failed("exchange", f"POST {endpoint} {why}")
        none = f"there is none of {', '.join(PAIRING_PATHS)}"
        raise self._failed("exchange", f"{none}: this version pairs by another name")

    async def _check_session(self, client: aiohttp.ClientSession, cookies: dict[str, str]) -> None:
        """Raise PairingFailed unless the cookies, given back, are those of somebody logged in."""
        given = "; ".join(f"{name}={value}" for name, value in cookies.items())
        answer = await self._request(
            client, "session", "GET", SESSION_PATH, headers={"Cookie": given}
        )
        if answer.status != 200:
            raise self._failed("session", f"GET {SESSION_PATH} answered {answer.status}")
        if self._parse_object("session", answer.body).get("authenticated") is not True:
            why = "says that the new cookie is not authenticated"
            raise self._failed("session", f"GET {SESSION_PATH} {why}")

    async def _request(
        self, client: aiohttp.ClientSession, step: str, method: str, path: str, **how: Any
    ) -> _Answer:
        """Send one request; return its answer, within limits."""
        what = f"{method} {path}"
        try:
            async with client.request(method, path, allow_redirects=False, **how) as answer:
                body = b""
                while more := await answer.content.read(_LIMIT_BYTES + 1 - len(body)):
                    body += more
                if len(body) > _LIMIT_BYTES:
                    why = f"{what} answered with more than {_LIMIT_BYTES} bytes"
                    raise self._failed(step, why)
                cookies = _parse_cookies(answer.headers.getall("Set-Cookie", []))
                return _Answer(answer.status, body, cookies)
        except TimeoutError:
            raise self._failed(step, f"{what} did not answer in time", slow=True) from None
        except aiohttp.ClientConnectorError as error:
            why = f"no connection to port {error.port}: {os.strerror(error.os_error.errno or 0)}"
            raise self._failed(step, f"{what}: {why}") from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            why = _first_line(str(error)) or type(error).__name__
            raise self._failed(step, f"{what}: {why}") from None

    def _parse_object(self, step: str, text: bytes) -> dict[str, Any]:
        said = redact(text.decode(errors="replace"), self._secrets)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise self._failed(step, f"no JSON, but {_first_line(said)!r}") from None
        if not isinstance(value, dict):
            raise self._failed(step, f"no object, but {_first_line(said)!r}")
        return value

    def _failed(self, step: str, reason: str, *, slow: bool = False) -> PairingFailed:
        return PairingFailed(step, redact(reason, self._secrets), slow=slow)


def _parse_cookies(lines: Sequence[str]) -> dict[str, str]:
    """Read cookies by name, each as it came: that is how a browser gives it back."""
    found: dict[str, str] = {}
    for line in lines:
        try:
            found |= {name: morsel.coded_value for name, morsel in SimpleCookie(line).items()}
        except CookieError:
            continue
    return found


def _first_line(text: str) -> str:
    """Take the first line that says something, fit to be shown."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[0], 300) if lines else ""
