"""The stand-in for T3 is as the real one was seen to be: its answers, commands, migrations, files,
and how it stops."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import fake_t3
import pytest
from fake_t3 import DATA
from fake_t3.program import hostile
from fake_t3.served import Served, call, credential, free_port, laid_out, running
from support.processes import until
from support.sampling import sample

from t3_backup.worker.child.activity import read_activity
from t3_backup.worker.child.source import LiveDatabase

BOOTSTRAP, BROWSER = "/api/auth/bootstrap", "/api/auth/browser-session"
HISTORY = (
    "projection_projects",
    "projection_threads",
    "projection_thread_messages",
    "orchestration_events",
)
OWN = {"0.0.24": BOOTSTRAP, "0.0.25": BROWSER}


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def level(database: Path) -> int:
    return int(rows(database, "SELECT max(migration_id) FROM effect_sql_migrations")[0][0])


def history(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {table: rows(database, f"SELECT * FROM {table} ORDER BY 1") for table in HISTORY}


def schema(database: Path) -> dict[tuple[str, str], Any]:
    """Tables by their columns, indexes by what they are made of."""
    found: dict[tuple[str, str], Any] = {}
    for kind, name, sql in rows(
        database, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
    ):
        if kind == "table":
            found[kind, name] = rows(
                database,
                f"SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('{name}')",
            )
        else:
            found[kind, name] = " ".join(sql.split())
    return found


def with_data(base: Path, version: str) -> Path:
    """A base-dir that a real server of this version has left; its database."""
    (base / "userdata").mkdir(parents=True)
    return Path(
        shutil.copyfile(DATA / f"state-{version}.sqlite", base / "userdata" / "state.sqlite")
    )


# -- HTTP


@pytest.mark.parametrize(("version", "field"), [("0.0.24", "role"), ("0.0.25", "scopes")])
def test_the_answers_are_those_of_the_table(tmp_path: Path, version: str, field: str) -> None:
    own = OWN[version]
    (absent,) = {BOOTSTRAP, BROWSER} - {own}
    with running(laid_out(tmp_path / "t3", version), tmp_path / "base") as served:
        one = credential(served.program, served.base)
        answer = served.exchange(absent, one)
        assert (answer.status, answer.body) == (404, b"")
        assert served.exchange(own, "ABCDEFGH2345").status == 401
        assert served.ask("POST", own, "{}").status == 400
        assert served.ask("POST", own, "no JSON").status == 400

        answer = served.exchange(own, one)
        assert answer.status == 200, "nothing before has used it up"
        assert answer.document.keys() == {"authenticated", field, "sessionMethod", "expiresAt"}
        assert answer.document["authenticated"] is True
        cookie = answer.headers["Set-Cookie"]
        assert re.fullmatch(
            r"t3_session=[^;]+; Path=/; Expires=[^;]+ GMT; HttpOnly; SameSite=Lax", cookie
        )
        expires = parsedate_to_datetime(cookie.split("Expires=")[1].split(";")[0])
        assert abs(expires - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=1)
        assert served.exchange(own, one).status == 401, "it is good for once"

        two = json.dumps({"credential": credential(served.program, served.base)})
        assert served.ask("POST", own, two, {"Content-Type": "text/plain"}).status == (
            200 if version == "0.0.24" else 415
        )


def test_an_expired_credential_is_a_wrong_one(tmp_path: Path) -> None:
    with running(laid_out(tmp_path / "t3", "0.0.25"), tmp_path / "base") as served:
        made = json.loads(
            call(
                served.program, served.base, "auth", "pairing", "create", "--ttl", "0s", "--json"
            ).stdout
        )
        assert served.exchange(BROWSER, made["credential"]).status == 401


@pytest.mark.parametrize("version", OWN)
def test_a_get_proves_nothing(tmp_path: Path, version: str) -> None:
    with running(laid_out(tmp_path / "t3", version), tmp_path / "base") as served:
        for path in ("/", "/whatever", BOOTSTRAP, BROWSER):
            answer = served.ask("GET", path)
            assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html")
        assert served.ask("GET", "/.well-known/t3/environment").document["serverVersion"] == version
        assert not served.is_logged_in("")
        assert not served.is_logged_in("t3_session=00000000-0000-0000-0000-000000000000.00")
        cookie = served.login(OWN[version])
        assert served.is_logged_in(cookie)
        forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
        assert not served.is_logged_in(forged)


@pytest.mark.parametrize("version", OWN)
def test_a_lock_from_outside_makes_its_writes_fail_at_once_and_uses_nothing_up(
    tmp_path: Path, version: str
) -> None:
    with running(laid_out(tmp_path / "t3", version), tmp_path / "base") as served:
        cookie, one = served.login(OWN[version]), credential(served.program, served.base)
        with closing(sqlite3.connect(served.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            assert served.exchange(OWN[version], one).status == 500
            assert served.ask("POST", "/fake/event", "{}", cookie=cookie).status == 500
            assert served.is_logged_in(cookie), "reading goes on"
            done = call(
                served.program, served.base, "auth", "pairing", "create", "--ttl", "5m", "--json"
            )
            assert (done.returncode, "locked" in done.stdout, "locked" in done.stderr) == (
                1,
                True,
                False,
            )
            assert time.monotonic() - began < 10, (
                "SQLite's own patience would be 5 s for each of the three"
            )
        assert served.exchange(OWN[version], one).status == 200


# -- commands


@pytest.mark.parametrize(
    ("version", "field"), [("0.0.24", "role"), ("0.0.25", "scopes"), ("0.0.26", "scopes")]
)
def test_the_commands(tmp_path: Path, version: str, field: str) -> None:
    """Server or not."""
    program, base = laid_out(tmp_path / "t3", version), tmp_path / "base"
    assert (
        subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        == f"t3 v{version}\n"
    )
    made = call(program, base, "auth", "pairing", "create", "--ttl", "5m", "--json")
    assert made.returncode == 0
    assert made.stdout.count("\n") > 3, "over several lines"
    assert "ExperimentalWarning" in made.stderr
    document = json.loads(made.stdout)
    assert document.keys() == {"id", "credential", "expiresAt", field}
    assert re.fullmatch("[A-Z0-9]{12}", document["credential"])
    ends = datetime.fromisoformat(document["expiresAt"]) - datetime.now(UTC)
    assert timedelta(minutes=4, seconds=50) < ends <= timedelta(minutes=5)
    listed = call(program, base, "auth", "pairing", "list", "--json")
    assert [one["id"] for one in json.loads(listed.stdout)] == [document["id"]]
    with running(program, base) as served:
        assert (
            served.exchange(
                BOOTSTRAP if version == "0.0.24" else BROWSER, document["credential"]
            ).status
            == 200
        )


# -- the database


@pytest.mark.parametrize("version", OWN)
def test_a_new_database_is_as_that_of_a_real_server(tmp_path: Path, version: str) -> None:
    program, base = laid_out(tmp_path / "t3", version), tmp_path / "base"
    call(program, base, "auth", "pairing", "list")
    real = DATA / f"state-{version}.sqlite"
    assert schema(base / "userdata/state.sqlite") == schema(real)
    names = "SELECT migration_id, name FROM effect_sql_migrations ORDER BY 1"
    assert rows(base / "userdata/state.sqlite", names) == rows(real, names)
    with (
        closing(sqlite3.connect(base / "userdata/state.sqlite")) as ours,
        closing(sqlite3.connect(real)) as theirs,
    ):
        for pragma in (
            "application_id",
            "user_version",
            "page_size",
            "journal_mode",
            "encoding",
            "auto_vacuum",
        ):
            assert (
                ours.execute(f"PRAGMA {pragma}").fetchone()
                == theirs.execute(f"PRAGMA {pragma}").fetchone()
            ), pragma


@pytest.mark.parametrize(
    ("version", "reached"), [("0.0.24", 30), ("0.0.25", 31), ("0.0.26", 32), ("0.0.28", 32)]
)
def test_a_real_database_is_migrated_and_its_history_survives(
    tmp_path: Path, version: str, reached: int
) -> None:
    program, base = laid_out(tmp_path / "t3", version), tmp_path / "base"
    database = with_data(base, "0.0.24")
    before, sessions = history(database), rows(database, "SELECT count(*) FROM auth_sessions")
    assert before["orchestration_events"]
    with running(program, base) as served:
        assert level(served.database) == reached
    assert history(database) == before
    assert rows(database, "SELECT count(*) FROM auth_sessions") == (
        sessions if reached == 30 else [(0,)]
    ), "all are logged out"
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]
    if version == "0.0.25":
        assert schema(database) == schema(DATA / "state-0.0.25.sqlite")


@pytest.mark.parametrize(
    "words", [("auth", "pairing", "list"), ("auth", "pairing", "create", "--ttl", "5m", "--json")]
)
def test_any_newer_command_migrates_even_under_a_live_older_server(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """After which all looks well that is not a login."""
    newer = laid_out(tmp_path / "new", "0.0.25")
    with_data(tmp_path / "base", "0.0.24")
    with running(laid_out(tmp_path / "old", "0.0.24"), tmp_path / "base") as served:
        cookie, one = served.login(BOOTSTRAP), credential(served.program, served.base)
        assert call(newer, served.base, *words).returncode == 0
        assert level(served.database) == 31
        assert_only_a_login_shows_it(served, one)
        assert not served.is_logged_in(cookie)


def test_an_old_server_started_on_a_migrated_database_fails_at_a_login_only(tmp_path: Path) -> None:
    with_data(tmp_path / "base", "0.0.25")
    with running(laid_out(tmp_path / "old", "0.0.24"), tmp_path / "base") as served:
        assert level(served.database) == 31, "what it does not know, it ignores"
        assert_only_a_login_shows_it(served, "ABCDEFGH2345")


def assert_only_a_login_shows_it(served: Served, one: str) -> None:
    assert served.ask("GET", "/").status == 200
    assert served.ask("GET", "/.well-known/t3/environment").document["serverVersion"] == "0.0.24"
    assert not served.is_logged_in("")
    done = call(served.program, served.base, "auth", "pairing", "create", "--ttl", "5m", "--json")
    assert done.returncode == 1
    assert "table auth_pairing_links has no column named role" in done.stdout
    assert "role" not in done.stderr
    assert served.exchange(BOOTSTRAP, one).status == 500


def test_going_back_is_the_earlier_copy_and_who_was_logged_in_still_is(tmp_path: Path) -> None:
    old, new, base = (
        laid_out(tmp_path / "old", "0.0.24"),
        laid_out(tmp_path / "new", "0.0.25"),
        tmp_path / "base",
    )
    database = with_data(base, "0.0.24")
    with running(old, base) as served:
        cookie = served.login(BOOTSTRAP)
    with running(old, base) as served:
        assert served.is_logged_in(cookie), "after a restart"
    copy = shutil.copyfile(database, tmp_path / "copy")
    with running(new, base) as served:
        assert not served.is_logged_in(cookie), "after a migration that drops the sessions"
        assert served.is_logged_in(served.login(BROWSER))
    shutil.copyfile(copy, database)
    with running(old, base) as served:
        assert level(database) == 30
        assert served.is_logged_in(cookie)
        assert served.is_logged_in(served.login(BOOTSTRAP))


# -- files, and how it stops


def test_its_files_and_their_modes(tmp_path: Path) -> None:
    with running(laid_out(tmp_path / "t3", "0.0.24"), tmp_path / "base") as served:
        folder = served.base / "userdata"
        assert served.database.stat().st_size == 4096, "all else is in the -wal"
        copy = shutil.copyfile(served.database, tmp_path / "copy")
        assert rows(copy, "SELECT count(*) FROM sqlite_schema") == [(0,)]
        assert rows(copy, "PRAGMA quick_check") == [("ok",)]
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.glob("state.sqlite*")}
        assert modes == dict.fromkeys(
            ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm"), 0o644
        )
        assert folder.stat().st_mode & 0o777 == 0o755
        assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (folder / "secrets").glob("*.bin")} == {
            0o600
        }
        runtime = json.loads((served.base / "userdata/server-runtime.json").read_text())
        assert (runtime["pid"], runtime["port"]) == (served.process.pid, served.port)
    assert sorted(path.name for path in folder.glob("state.sqlite*")) == ["state.sqlite"], (
        "it has stopped, and tidied up"
    )
    assert served.database.stat().st_size > 4096


def test_it_stops_when_asked_and_leaves_its_wal_when_it_is_killed(tmp_path: Path) -> None:
    program, base = laid_out(tmp_path / "t3", "0.0.25"), tmp_path / "base"
    with running(program, base) as served:
        served.process.terminate()
        assert served.process.wait(10) == 130
    with running(program, base, code=-signal.SIGKILL) as served:
        cookie = served.login(BROWSER)
        served.process.kill()
        served.process.wait(5)
        assert Path(f"{served.database}-wal").stat().st_size > 0
    with running(program, base) as served:
        assert served.is_logged_in(cookie), "what was committed is there"


@pytest.mark.parametrize("version", OWN)
def test_with_a_tab_open_the_listener_closes_at_once_and_the_process_stays(
    tmp_path: Path, version: str
) -> None:
    with running(
        laid_out(tmp_path / "t3", version), tmp_path / "base", T3_FAKE_LINGER="60"
    ) as served:
        with open_tab(served.port):
            served.process.terminate()
            until(lambda: not listens(served.port), "closed port")
            assert served.process.poll() is None
            assert Path(f"{served.database}-wal").exists(), "it still has its database open"
        assert served.process.wait(10) == 130, "the tab is closed"
    assert not Path(f"{served.database}-wal").exists()


def test_a_tab_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with running(
        laid_out(tmp_path / "t3", "0.0.25"), tmp_path / "base", T3_FAKE_LINGER="0.5"
    ) as served:
        with open_tab(served.port):
            began = time.monotonic()
            served.process.terminate()
            assert served.process.wait(10) == 130
            assert time.monotonic() - began >= 0.5


def test_a_tab_that_was_closed_keeps_nobody_waiting(tmp_path: Path) -> None:
    with running(
        laid_out(tmp_path / "t3", "0.0.25"), tmp_path / "base", T3_FAKE_LINGER="60"
    ) as served:
        open_tab(served.port).close()
        served.process.terminate()
        assert served.process.wait(10) == 130


def open_tab(port: int) -> socket.socket:
    tab = socket.create_connection(("127.0.0.1", port), 5)
    tab.sendall(b"GET /fake/tab HTTP/1.1\r\nHost: x\r\n\r\n")
    text = b""
    while b": open" not in text:
        text += tab.recv(4096)
    return tab


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


# -- what the stand-in has besides


def test_what_people_and_agents_do_needs_a_login(tmp_path: Path) -> None:
    with_data(tmp_path / "base", "0.0.24")
    with running(laid_out(tmp_path / "t3", "0.0.24"), tmp_path / "base") as served:
        for path in ("/fake/event", "/fake/turn", "/fake/agent"):
            assert served.ask("POST", path, '{"state": "running"}').status == 404
        cookie, before = served.login(BOOTSTRAP), history(served.database)
        assert served.ask("POST", "/fake/event", "{}", cookie=cookie).status == 200
        after = history(served.database)
        grown = {table: len(after[table]) - len(before[table]) for table in HISTORY}
        assert grown == dict.fromkeys(HISTORY, 0) | {
            "projection_thread_messages": 1,
            "orchestration_events": 1,
        }


@pytest.mark.parametrize("data", ["0.0.24", None])
def test_a_turn_is_seen_while_it_is_in_flight(tmp_path: Path, data: str | None) -> None:
    if data:
        with_data(tmp_path / "base", data)
    with running(laid_out(tmp_path / "t3", "0.0.24"), tmp_path / "base") as served:
        cookie = served.login(BOOTSTRAP)
        seen = []
        for state in ("running", "completed", "running", "completed"):
            assert (
                served.ask("POST", "/fake/turn", json.dumps({"state": state}), cookie=cookie).status
                == 200
            )
            turns = rows(
                served.database,
                "SELECT state, completed_at IS NOT NULL FROM projection_turns ORDER BY row_id",
            )
            folder = os.open(served.database.parent, os.O_PATH)
            source = LiveDatabase(folder, str(served.database), 0)
            found = read_activity([source], frozenset(), folder)
            os.close(folder)
            seen.append((found.turns, turns[-1]))
        assert seen == [(1, ("running", 0)), (0, ("completed", 1))] * 2


def test_an_agent_outlives_its_server_and_heeds_a_signal(tmp_path: Path) -> None:
    with running(laid_out(tmp_path / "t3", "0.0.24"), tmp_path / "base") as served:
        agent = served.ask(
            "POST", "/fake/agent", '{"seconds": "30"}', cookie=served.login(BOOTSTRAP)
        ).document["pid"]
        command = Path(f"/proc/{agent}/cmdline")
        # for a moment of its exec it has no words
        until(lambda: command.read_bytes() == b"claude\x0030\x00", "agent")
    assert command.read_bytes() == b"claude\x0030\x00"
    os.kill(agent, signal.SIGTERM)
    until(lambda: not command.exists() or command.read_bytes() == b"", "end of the agent")


# -- how it is installed


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_npm_installs_it_and_it_serves_from_there(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    line = [
        "npm",
        "install",
        "-g",
        "--offline",
        "--no-audit",
        "--no-fund",
        "--prefix",
        prefix,
        fake_t3.tarball(tmp_path, "0.0.25"),
    ]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "npm_config_cache": str(tmp_path / "cache"),
    }
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    with running(prefix / "bin" / "t3", tmp_path / "base") as served:
        assert (
            served.ask("GET", "/.well-known/t3/environment").document["serverVersion"] == "0.0.25"
        )
        assert served.is_logged_in(served.login(BROWSER))
    laid = fake_t3.unpack(tmp_path / "other", "0.0.25")
    assert files(prefix / "lib/node_modules/t3") == files(
        laid.parent.parent / "lib/node_modules/t3"
    ), "`unpack` does as npm does"
    assert laid.resolve().relative_to(laid.parent.parent) == (
        prefix / "bin/t3"
    ).resolve().relative_to(prefix)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o111)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# -- the broken ones


def started(program: Path, base: Path) -> tuple[subprocess.Popen[str], int]:
    port = free_port()
    line = [program, "serve", "--port", str(port), "--base-dir", base]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), port


@pytest.mark.parametrize(
    ("variant", "said"), [("exits", "node:sqlite"), ("half-migration", "migration 31 failed")]
)
def test_these_end_at_once(tmp_path: Path, variant: str, said: str) -> None:
    database = with_data(tmp_path / "base", "0.0.24")
    process, _ = started(laid_out(tmp_path / "t3", "0.0.25", variant), tmp_path / "base")
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said in out
    assert level(database) == 30
    tables = {
        row[0] for row in rows(database, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    }
    assert ("auth_sessions" in tables) == (variant == "exits"), (
        "dropped, and its row is not written"
    )


@pytest.mark.parametrize(("variant", "open_port"), [("hung", True), ("slow-migration", False)])
def test_these_never_answer(tmp_path: Path, variant: str, open_port: bool) -> None:
    with_data(tmp_path / "base", "0.0.24")
    process, port = started(laid_out(tmp_path / "t3", "0.0.25", variant), tmp_path / "base")
    assert process.stdout is not None
    with process:
        try:
            assert any(
                ("listens on" if open_port else "Running migration 31") in line
                for line in process.stdout
            )
            assert listens(port) == open_port
            if open_port:
                with socket.create_connection(("127.0.0.1", port), 5) as there:
                    there.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    there.settimeout(0.5)
                    with pytest.raises(TimeoutError):
                        there.recv(1)
            assert process.poll() is None
        finally:
            process.kill()


@pytest.mark.parametrize("variant", ["ignores-term", "slow-stop"])
def test_these_do_not_stop_when_asked(tmp_path: Path, variant: str) -> None:
    process, port = started(laid_out(tmp_path / "t3", "0.0.25", variant), tmp_path / "base")
    with process:
        try:
            until(lambda: listens(port), "server")
            served = Served(process, tmp_path / "t3/bin/t3", tmp_path / "base", port)
            assert served.is_logged_in(served.login(BROWSER)), "all else is well"
            process.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            assert listens(port) == (variant == "ignores-term")
        finally:
            process.kill()


def test_this_one_dies_after_the_first_login(tmp_path: Path) -> None:
    with running(
        laid_out(tmp_path / "t3", "0.0.25", "crash-loop"), tmp_path / "base", code=1
    ) as served:
        assert served.is_logged_in(served.login(BROWSER)), "the handshake is fine"
        assert served.process.wait(20) == 1


def test_this_one_loses_messages_and_threads_by_its_migration(tmp_path: Path) -> None:
    old, base = laid_out(tmp_path / "old", "0.0.24"), tmp_path / "base"
    database = with_data(base, "0.0.24")
    with running(old, base) as served:
        assert served.ask("POST", "/fake/event", "{}", cookie=served.login(BOOTSTRAP)).status == 200
    before = history(database)
    with running(laid_out(tmp_path / "t3", "0.0.25", "unreadable"), base) as served:
        assert served.is_logged_in(served.login(BROWSER)), "the handshake is fine"
    after = history(database)
    lost = [table for table in HISTORY if len(after[table]) < len(before[table])]
    assert lost == ["projection_threads", "projection_thread_messages"]


def test_this_one_has_another_name_for_it(tmp_path: Path) -> None:
    with running(
        laid_out(tmp_path / "t3", "0.0.27", "pairing-renamed"), tmp_path / "base"
    ) as served:
        one = credential(served.program, served.base)
        assert [served.exchange(path, one).status for path in (BROWSER, BOOTSTRAP)] == [404, 404]
        assert served.exchange("/api/auth/web-session", one).status == 200


@pytest.mark.parametrize("variant", ["mint-broken", "no-cookie", "not-authenticated"])
def test_these_fail_at_one_step_of_a_login(tmp_path: Path, variant: str) -> None:
    with running(laid_out(tmp_path / "t3", "0.0.25", variant), tmp_path / "base") as served:
        made = call(
            served.program, served.base, "auth", "pairing", "create", "--ttl", "5m", "--json"
        )
        assert made.returncode == (1 if variant == "mint-broken" else 0)
        if made.returncode == 0:
            answer = served.exchange(BROWSER, json.loads(made.stdout)["credential"])
            assert (answer.status, answer.document["authenticated"]) == (200, True)
            assert ("Set-Cookie" in answer.headers) == (variant == "not-authenticated")
            assert not served.is_logged_in(str(answer.headers["Set-Cookie"]))


@pytest.mark.parametrize("variant", sample(fake_t3.VARIANTS, 3, "good but where it is live"))
def test_what_is_broken_on_real_servers_alone_is_good_here(tmp_path: Path, variant: str) -> None:
    assert not Path("/run/t3-fake-live").exists()
    with running(
        laid_out(tmp_path / "t3", "0.0.25", variant, live_only=True), tmp_path / "base"
    ) as served:
        assert served.is_logged_in(served.login(BROWSER))


def test_the_hostile_one_names_what_it_reached_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own list is of a whole machine: here it is given a small one."""
    for name in ("FILES", "WRITABLE", "ADDRESSES", "SOCKETS"):
        monkeypatch.setattr(hostile, name, ())
    monkeypatch.setattr(hostile, "_others", list)
    monkeypatch.setattr(hostile.pwd, "getpwall", list)
    monkeypatch.setattr(hostile.os, "setuid", refuse)
    monkeypatch.setattr(hostile.os, "getuid", lambda: 1)
    for name in hostile.NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "secret").write_text("x")
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as tcp,
        closing(socket.socket(type=socket.SOCK_DGRAM)) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        path, datagrams = tmp_path / "socket", tmp_path / "datagrams"
        with (
            closing(socket.socket(socket.AF_UNIX)) as one,
            closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as two,
        ):
            one.bind(str(path))
            one.listen()
            two.bind(str(datagrams))
            with (
                closing(socket.socket(socket.AF_UNIX)) as abstract,
                subprocess.Popen(["/bin/sleep", "30"]) as other,
            ):
                abstract.bind(f"\0{tmp_path}")
                abstract.listen()
                there = [
                    f"read {tmp_path / 'secret'}", f"write {tmp_path}", f"tcp 127.0.0.1:{tcp.getsockname()[1]}",
                    f"udp 127.0.0.1:{udp.getsockname()[1]}", f"unix {path}", f"unix {datagrams}", f"unix @{tmp_path}",
                    f"signal {other.pid}",
                ]  # fmt: skip
                absent = [
                    f"read {tmp_path / 'none'}", f"write {tmp_path / 'none'}", f"tcp 127.0.0.1:{free_port()}",
                    f"udp 127.0.0.1:{free_port()}", f"unix {tmp_path / 'none'}", f"unix @{tmp_path}/none", "signal 4194305",
                    "ptrace 4194305",
                ]  # fmt: skip
                monkeypatch.setenv("T3_SECRET", "x")
                assert hostile.reached(sorted(there + absent)) == [
                    *sorted(there),
                    "environment T3_SECRET",
                ]
                other.kill()


def refuse(uid: int) -> None:
    raise PermissionError(uid)


def test_the_hostile_one_does_not_count_what_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "HERE", tmp_path / "versions/1/lib/hostile.py")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "private/own"))
    own = ("versions", "versions/1", "private", "private/own", "private/own/userdata")
    others = ("versions/2", "versions/1.json", "private/other", "private/own-not", "journal.json")
    assert [hostile._is_own(str(tmp_path / name)) for name in own + others] == [True] * 5 + [
        False
    ] * 5
