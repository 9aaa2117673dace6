"""A login check leaves no login of its own in a database, and never ends another's."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fake_t3.served import JSON, Served, credential, laid_out, running
from support.paths import ROOT

from t3_backup.t3.endpoints import PAIRING_PATHS
from t3_backup.t3.pairing import pair
from t3_backup.t3.sessions import USER_AGENT, end_ours, find_ours

BOOTSTRAP, BROWSER = "/api/auth/bootstrap", "/api/auth/browser-session"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def log_in(served: Served, agent: str) -> str:
    """Log in by this User-Agent; the cookie."""
    body = json.dumps({"credential": credential(served.program, served.base)})
    for endpoint in PAIRING_PATHS:
        answer = served.ask("POST", endpoint, body, {**JSON, "User-Agent": agent})
        if answer.status != 404:
            return str(answer.headers["Set-Cookie"]).split(";")[0]
    raise AssertionError("no endpoint took it")


def agents(served: Served) -> list[str]:
    """Who has made the logins that stand."""
    line = [served.program, "auth", "session", "list", "--base-dir", served.base, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return sorted(one["client"]["userAgent"] for one in json.loads(done.stdout))


@pytest.mark.parametrize("version", ["0.0.24", "0.0.25", "0.0.42", "0.1.8"])
def test_our_logins_are_ended_and_all_others_stay(tmp_path: Path, version: str) -> None:
    with running(laid_out(tmp_path / "t3", version), tmp_path / "base") as served:
        cookie = log_in(served, FIREFOX)
        other = log_in(served, f"{USER_AGENT} and more")
        log_in(served, "t3-backup/0.9.1~rc1 (login check)")  # left by one that was killed
        pair(served.program, served.base, served.port)
        assert len(agents(served)) == 4
        ours = log_in(served, USER_AGENT)
        assert served.is_logged_in(ours)

        line = [sys.executable, "-m", "t3_backup.t3.sessions_command"]  # as t3-autoupdate calls it
        line += [f"--t3={served.program}", f"--base-dir={served.base}"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"left": ""}
        assert agents(served) == [FIREFOX, f"{USER_AGENT} and more"]
        assert not served.is_logged_in(ours)
        assert served.is_logged_in(cookie)
        assert served.is_logged_in(other)


def test_the_command_leaves_a_login_only_where_it_is_to(tmp_path: Path) -> None:
    def command(*words: object) -> dict[str, object]:
        line = [sys.executable, "-m", "t3_backup.t3.pair_command", "--json", *map(str, words)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))

    with running(laid_out(tmp_path / "t3", "0.0.42"), tmp_path / "base") as served:
        words = ("--t3", served.program, "--base-dir", served.base, "--port", served.port)
        assert command(*words, "--keep") == {"paired": True, "endpoint": BROWSER}
        assert agents(served) == [USER_AGENT]
        assert command(*words) == {"paired": True, "endpoint": BROWSER, "left": ""}
        assert agents(served) == []


def test_a_login_that_is_not_good_is_ended_too(tmp_path: Path) -> None:
    program = laid_out(tmp_path / "t3", "0.0.42", "not-authenticated")
    with running(program, tmp_path / "base") as served:
        line = [sys.executable, "-m", "t3_backup.t3.pair_command", "--json", f"--t3={program}"]
        line += [f"--base-dir={served.base}", f"--port={served.port}"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert json.loads(done.stdout)["left"] == ""
        assert agents(served) == []


def listing(*agents: object) -> str:
    """A script that lists a login of each of them, and then does what it is given."""
    rows = [{"sessionId": f"s{n}", "client": {"userAgent": one}} for n, one in enumerate(agents)]
    return f"[ $3 = list ] && echo '{json.dumps(rows)}' && exit"


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ("exit 3", "the login of this check: t3 auth session list: it ended with 3"),
        ("echo hello", "the login of this check: t3 auth session list: Expecting value"),
        ("echo 'locked'; exit 1", "the login of this check: t3 auth session list: locked"),
        ("echo '[1]'", "the login of this check: t3 auth session list: it is no list of logins"),
        ("echo '{\"x\": 1}'", "t3 auth session list: it is no list of logins"),
        ("printf '%100000s' | tr ' ' '['", "t3 auth session list: it is no list of logins"),
        ("sleep 60", "t3 auth session list: it did not end in time"),
        (f"{listing(USER_AGENT)}; echo 'Error: full'; exit 1", "t3 auth session revoke s0: Error"),
        (f"{listing(USER_AGENT, USER_AGENT)}; exit 1", "2 logins of our checks: t3 auth session"),
    ],
)
def test_what_is_left_is_said_and_why(
    t3_script: Callable[[str], Path], tmp_path: Path, script: str, left: str
) -> None:
    seconds = 2 if "time" in left else 30
    assert left in end_ours(t3_script(script), tmp_path, seconds)


def test_no_other_login_is_ever_named_to_the_program(
    t3_script: Callable[[str], Path], tmp_path: Path
) -> None:
    others = (None, "", FIREFOX, "Python/3.11 aiohttp/3.8.4", ["x"], f" {USER_AGENT}", "t3-backup")
    assert end_ours(t3_script(f"{listing(*others, USER_AGENT)}; exit 0"), tmp_path) == ""
    called = [line.split() for line in (tmp_path / "called").read_text().splitlines()]
    revoked = [words[-1] for words in called if words[2] == "revoke"]
    assert revoked == [f"s{len(others)}"]


def test_an_id_that_would_be_an_option_is_not_given_to_the_program() -> None:
    rows = [{"sessionId": "--base-dir=/", "client": {"userAgent": USER_AGENT}}]
    with pytest.raises(ValueError, match="an id of another form"):
        find_ours(json.dumps(rows).encode())


def test_a_login_that_the_database_alone_knows_is_ended_without_a_server(tmp_path: Path) -> None:
    """The program writes to the database itself; whether a server runs does not matter."""
    program = laid_out(tmp_path / "t3", "0.0.42")
    with running(program, tmp_path / "base") as served:
        log_in(served, USER_AGENT)
    assert end_ours(program, served.base) == ""
    with closing(sqlite3.connect(served.database)) as connection:
        rows = connection.execute("SELECT revoked_at IS NULL FROM auth_sessions").fetchall()
    assert rows == [(0,)]
