"""The official T3 0.0.42: paired, backed up and restored; and the stand-in is held against it."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_t3.served import JSON, Served, credential, laid_out
from fake_t3.served import running as running_stand_in
from support import real_t3
from support.host import Host
from support.users import needs_root

from demo.users import User
from t3_backup.t3 import pairing
from t3_backup.t3.sessions import end_ours

BROWSER, BOOTSTRAP = "/api/auth/browser-session", "/api/auth/bootstrap"
HOSTS = ("127.0.0.1", "0.0.0.0")


@pytest.fixture(scope="module", autouse=True)
def _fetched() -> None:
    """It is there, or every test of this file fails with the reason."""
    real_t3.program()


@pytest.mark.parametrize("host", HOSTS)
def test_a_login_succeeds_wherever_it_listens_and_none_of_ours_stays(
    tmp_path: Path, host: str
) -> None:
    base, log = tmp_path / "base", tmp_path / "log"
    with real_t3.running(base, log, host) as served:
        person = served.login(BROWSER)
        assert pairing.pair(served.program, base, served.port) == BROWSER
        assert len(real_t3.sessions(base)) == 2
        assert end_ours(served.program, base) == ""
        [left] = real_t3.sessions(base)
        assert "userAgent" not in left["client"]  # type: ignore[operator]
        assert served.is_logged_in(person)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("DROP TABLE auth_pairing_links", "Error: no such table: auth_pairing_links"),
        ("garbage", "Error: file is not a database"),
    ],
)
def test_the_innermost_error_of_a_mint_is_told(tmp_path: Path, harm: str, reason: str) -> None:
    base = tmp_path / "base"
    real_t3.call(base, "auth", "pairing", "list")
    database = base / "userdata/state.sqlite"
    if harm == "garbage":
        database.write_bytes(b"no database " * 1000)
    else:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(harm)
            connection.commit()
    with pytest.raises(pairing.PairingFailed) as failed:
        pairing.pair(real_t3.program(), base, 1)
    assert str(failed.value) == f"mint: t3 auth pairing create ended with 1: {reason}"


@needs_root
def test_a_user_is_backed_up_while_it_serves_and_restored_with_their_logins(
    host: Host, make_user: Any, tmp_path: Path
) -> None:
    user: User = make_user("alice")
    host.write_map(user)
    base, log, outputs = user.home / ".t3", tmp_path / "log", list[str]()

    def t3(*words: str) -> int:
        done = host.t3(*words)
        outputs.append(done.out + done.err)
        return done.code

    def projects() -> list[str]:
        with closing(sqlite3.connect(f"file:{user.database}?mode=ro", uri=True)) as connection:
            query = "SELECT title FROM projection_projects WHERE deleted_at IS NULL"
            return sorted(title for (title,) in connection.execute(query))

    with real_t3.running(base, log, user=user) as served:
        tokens = [real_t3.token(log)]
        _add_project(user, base, "before")
        old = _log_in(served, user)
        assert t3("run") == 0, outputs
        _add_project(user, base, "after")
        new = _log_in(served, user)
        assert projects() == ["after", "before"]
        assert t3("restore", user.name, "--yes") == 4, "it serves"
        assert served.is_logged_in(new)
    assert t3("restore", user.name, "--yes") == 0, outputs
    assert projects() == ["before"]
    with real_t3.running(base, log, user=user, port=served.port) as served:
        tokens.append(real_t3.token(log))
        assert served.is_logged_in(old)
        assert not served.is_logged_in(new)
    said = "".join(outputs) + (host.folder / "log").read_text()
    secrets = [*tokens, *(cookie.partition("=")[2] for cookie in (old, new))]
    assert len(set(secrets)) == 4
    assert not [one for one in secrets if one in said]


def _add_project(user: User, base: Path, title: str) -> None:
    folder = user.home / title
    folder.mkdir()
    user.give(folder)
    real_t3.call(base, "project", "add", str(folder), "--title", title, user=user)


def _log_in(served: Served, user: User) -> str:
    said = real_t3.call(served.base, "auth", "pairing", "create", "--json", user=user)
    answer = served.exchange(BROWSER, json.loads(said)["credential"])
    assert answer.status == 200
    return str(answer.headers["Set-Cookie"]).split(";")[0]


@contextmanager
def _serving(kind: str, folder: Path, host: str) -> Iterator[Served]:
    folder.mkdir()
    if kind == "real":
        with real_t3.running(folder / "base", folder / "log", host) as served:
            yield served
    else:
        program = laid_out(folder / "t3", real_t3.VERSION)
        with running_stand_in(program, folder / "base", host=host) as served:
            yield served


def _form(cookie: str, port: int) -> str:
    """The name of a cookie without what is this server's alone, and its attributes."""
    name, _, rest = cookie.partition("=")
    name = re.sub(r"[0-9a-f]{12}$", "HASH", name.replace(f"_{port}_", "_PORT_"))
    attributes = sorted(one.strip().partition("=")[0] for one in rest.split(";")[1:])
    return f"{name}; {'; '.join(attributes)}"


def _observe(served: Served) -> dict[str, object]:
    """What an overlap of both must have in common, request by request."""
    seen: dict[str, object] = {}

    def ask(what: str, *words: Any, **how: Any) -> Any:
        answer = served.ask(*words, **how)
        form = (answer.headers["Content-Type"] or "").partition(";")[0]
        keys = sorted(answer.document) if form == "application/json" else form
        seen[what] = (answer.status, keys if answer.status == 200 else None)
        return answer

    told = ask("session", "GET", "/api/auth/session").document
    seen["told"] = sorted(told["auth"])
    seen["name told"] = _form(f"{told['auth']['sessionCookieName']}=", served.port)
    one = credential(served.program, served.base)
    body = json.dumps({"credential": one})
    ask("another endpoint", "POST", BOOTSTRAP, body)
    made = ask("exchange", "POST", BROWSER, body)
    cookie = str(made.headers["Set-Cookie"])
    seen["cookie"] = _form(cookie, served.port)
    ask("reused", "POST", BROWSER, body)
    ask("wrong", "POST", BROWSER, json.dumps({"credential": "222222222222"}))
    ask("empty", "POST", BROWSER, "{}")
    ask("no JSON", "POST", BROWSER, body, headers={"Content-Type": "text/plain"})
    known = ask("known", "GET", "/api/auth/session", cookie=cookie.partition(";")[0])
    seen["authenticated"] = (told["authenticated"], known.document["authenticated"])
    where = ask("environment", "GET", "/.well-known/t3/environment").document
    seen["version"] = where["serverVersion"]
    ask("unknown", "GET", "/no/such/page")
    agent = {**JSON, "User-Agent": "browser"}
    again = json.dumps({"credential": credential(served.program, served.base)})
    ask("with an agent", "POST", BROWSER, again, headers=agent)
    return seen


def _ask_program(program: Path, base: Path) -> dict[str, object]:
    """What its commands print, as far as it is read."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        line = [str(program), *words]
        env = real_t3.environment(base.parent)
        return subprocess.run(
            line, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    at = ("--base-dir", str(base))
    minted = call("auth", "pairing", "create", *at, "--ttl", "5m", "--json")
    listed = call("auth", "session", "list", *at, "--json")
    rows = {row["client"].get("userAgent"): row for row in json.loads(listed.stdout)}
    one = rows["browser"]
    ended = [call("auth", "session", "revoke", *at, one["sessionId"]) for _ in range(2)]
    return {
        "version": call("--version").stdout,
        "mint": (minted.returncode, sorted(json.loads(minted.stdout)), minted.stderr),
        "session": (sorted(one), sorted(one["client"])),
        "revoke": [
            (done.returncode, done.stdout.replace(one["sessionId"], "ID"), done.stderr)
            for done in ended
        ],
    }


@pytest.mark.parametrize("host", HOSTS)
def test_the_stand_in_says_what_the_real_one_says(tmp_path: Path, host: str) -> None:
    found = {}
    for kind in ("real", "stand-in"):
        with _serving(kind, tmp_path / kind, host) as served:
            found[kind] = _observe(served)
            if host == HOSTS[0]:  # which the program knows nothing of
                found[kind] |= _ask_program(served.program, served.base)
            served.process.send_signal(signal.SIGTERM)
            found[kind]["on SIGTERM"] = served.process.wait(30)
    assert found["stand-in"] == found["real"]
    assert found["real"]["on SIGTERM"] == 130
