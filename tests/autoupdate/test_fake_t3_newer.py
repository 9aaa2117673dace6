"""The stand-in is as T3 was seen to be from 0.0.29 on: cookies, sessions, what it says, V2's import,
and the forms of its program."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import fake_t3
import pytest
from fake_t3 import DATA, SILENT, STEPS, forms
from fake_t3.served import Served, call, credential, free_port, laid_out, running
from support.processes import until
from support.t3_data import real_database

BROWSER = "/api/auth/browser-session"
V1, V2 = "0.0.42", "0.1.0"
LEDGER = "SELECT migration_id, name FROM effect_sql_migrations ORDER BY 1"
TEXTS = {
    "state.sqlite": "SELECT text FROM projection_thread_messages",
    "statev2.sqlite": "SELECT json_extract(payload_json, '$.text')"
    " FROM orchestration_v2_projection_messages",
}
QUIET = {"T3CODE_TELEMETRY_ENABLED": "false"}


def ask(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def texts(database: Path) -> list[str]:
    return sorted(text for (text,) in ask(database, TEXTS[database.name]))


def columns(database: Path) -> dict[str, Any]:
    """Tables by their columns, indexes by what they are made of."""
    made = ask(database, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return {
        name: ask(database, f"SELECT * FROM pragma_table_info('{name}')")
        if kind == "table"
        else " ".join(sql.split())
        for kind, name, sql in made
    }


def given(base: Path, *said: str) -> Path:
    """A base directory with a real database of 0.0.24, in which somebody has said this."""
    database = base / "userdata/state.sqlite"
    database.parent.mkdir(parents=True)
    shutil.copyfile(DATA / "state-0.0.24.sqlite", database)
    with closing(sqlite3.connect(database)) as connection:
        (thread,) = connection.execute(
            "SELECT thread_id FROM projection_threads ORDER BY created_at"
        ).fetchone()
        row = (
            "INSERT INTO projection_thread_messages VALUES (?, ?, NULL, 'user', ?, 0, '', '', NULL)"
        )
        connection.executemany(row, [(text, thread, text) for text in said])
        connection.commit()
    return database


def mint(program: Path, base: Path) -> subprocess.CompletedProcess[str]:
    return call(program, base, "auth", "pairing", "create", "--ttl", "5m", "--json")


def say(served: Served, cookie: str, text: str) -> None:
    answer = served.ask("POST", "/fake/event", json.dumps({"text": text}), cookie=cookie)
    assert answer.status == 200


@contextmanager
def heard(program: Path, base: Path, *words: str, **env: str) -> Iterator[tuple[Served, list[str]]]:
    """A server, and all that it has said up to where it listens, and a moment later."""
    line = [program, "serve", "--port", str(free_port()), "--base-dir", base, *words]
    said: list[str] = []
    with subprocess.Popen(
        list(map(str, line)), stdout=subprocess.PIPE, text=True, env=dict(os.environ) | env
    ) as process:
        assert process.stdout is not None
        try:
            for text in process.stdout:
                said.append(text)
                if len(said) > 30 and "listens on" in "".join(said):
                    break
            yield Served(process, program, base, int(str(line[3]))), said
        finally:
            process.kill()


# -- levels


@pytest.mark.parametrize(
    ("version", "real"),
    [
        ("0.0.30", "v1-from26-34"),
        ("0.0.42", "v1-real-0.0.42-from26-52"),
        ("0.0.44", "v1-from26-54"),
        ("0.0.46-nightly.7", "v2-from-real-0.0.42-61"),
    ],
)
@pytest.mark.parametrize("data", [True, False])
def test_its_database_is_as_a_real_one_of_that_level(
    tmp_path: Path, version: str, real: str, data: bool
) -> None:
    base, name = tmp_path / "base", "statev2.sqlite" if real.startswith("v2") else "state.sqlite"
    if data:
        given(base)
    assert mint(laid_out(tmp_path / "t3", version), base).returncode == 0
    made, wanted = base / "userdata" / name, real_database(real, tmp_path / "real.sqlite")
    assert columns(made) == columns(wanted)
    assert ask(made, LEDGER) == ask(wanted, LEDGER)
    assert ask(made, "PRAGMA integrity_check") == [("ok",)]


# -- logins


@pytest.mark.parametrize(
    ("version", "host", "name"),
    [
        ("0.0.28", "127.0.0.1", "t3_session"),
        ("0.0.31", "127.0.0.1", "t3_session_{port}_{place}"),
        ("0.0.31", "0.0.0.0", "t3_session"),
        (V1, "127.0.0.1", "t3_session_{port}_{place}"),
        (V1, "0.0.0.0", "t3_session_{environment}"),
        (V2, "127.0.0.1", "t3_session_{port}_{place}"),
        (V2, "0.0.0.0", "t3_session_{environment}"),
    ],
)
def test_the_cookie_has_the_name_of_its_version_and_host(
    tmp_path: Path, version: str, host: str, name: str
) -> None:
    program, base = laid_out(tmp_path / "t3", version), tmp_path / "base"
    with running(program, base, host=host) as served:
        cookie = served.login(BROWSER)
        environment = (base / "userdata/environment-id").read_text()
        wanted = name.format(
            port=served.port, place=hashed(f"{base}/userdata"), environment=hashed(environment)
        )
        assert cookie.partition("=")[0] == wanted
        assert served.is_logged_in(cookie)
        old = "t3_session=" + cookie.partition("=")[2]
        is_local = host == "127.0.0.1" and version != "0.0.28"
        assert served.is_logged_in(old) == (not is_local), "off loopback the old name still does"
        told = served.ask("GET", "/api/auth/session").document.get("auth", {})
        assert told.get("sessionCookieName") == (wanted if version in (V1, V2) else None)


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("version", ["0.0.24", V1, V2])
def test_sessions_are_listed_with_who_has_them_and_revoked(tmp_path: Path, version: str) -> None:
    program, base = laid_out(tmp_path / "t3", version), tmp_path / "base"
    own = "/api/auth/bootstrap" if version == "0.0.24" else BROWSER
    with running(program, base) as served:
        body = json.dumps({"credential": credential(program, base)})
        head = {"Content-Type": "application/json", "User-Agent": "somebody/1"}
        cookie = served.ask("POST", own, body, head).headers["Set-Cookie"].split(";")[0]
        (found,) = json.loads(call(program, base, "auth", "session", "list", "--json").stdout)
        assert found["client"] == {
            "ipAddress": "127.0.0.1",
            "userAgent": "somebody/1",
            "deviceType": "desktop",
        }
        assert found.keys() - {"scopes", "role"} == {
            "sessionId", "method", "subject", "client", "connected", "issuedAt", "expiresAt",
            "lastConnectedAt",
        }  # fmt: skip
        told = [
            call(program, base, "auth", "session", "revoke", found["sessionId"]) for _ in range(2)
        ]
        assert [(done.returncode, done.stdout.split()[0]) for done in told] == [
            (0, "Revoked"),
            (0, "No"),
        ]
        assert not served.is_logged_in(cookie)
        assert call(program, base, "auth", "session", "list", "--json").stdout == "[]\n"


# -- what it says and starts


@pytest.mark.parametrize("version", ["0.0.33", V1, V2])
def test_an_error_of_a_mint_is_told_on_standard_output_with_all_its_causes(
    tmp_path: Path, version: str
) -> None:
    base = tmp_path / "base"
    name = "statev2.sqlite" if version == V2 else "state.sqlite"
    (base / "userdata").mkdir(parents=True)
    (base / "userdata" / name).write_bytes(os.urandom(8192))
    done = mint(laid_out(tmp_path / "t3", version), base)
    assert (done.returncode, done.stdout.count("file is not a database")) == (1, 1)
    lines = done.stdout.splitlines()
    if version == "0.0.33":
        assert lines == ["SqlError: file is not a database"]
    else:
        assert "ERROR" in lines[0]
        assert [line.strip() for line in lines if "[cause]" in line][-1] == (
            "[cause]: Error: file is not a database"
        )
        assert len(lines) > 10
    assert ("ExperimentalWarning" in done.stderr) == (version == "0.0.33")


def test_a_server_prints_last_a_token_that_logs_in(tmp_path: Path) -> None:
    with heard(laid_out(tmp_path / "t3", V1), tmp_path / "base", **QUIET) as (served, said):
        text = "".join(said)
        found = re.search(r"^Token: ([A-Z0-9]{12})$", text, re.MULTILINE)
        assert found, text
        assert f"/pair#token={found[1]}\n" in text
        assert any("█" in line for line in said[-10:])
        assert served.exchange(BROWSER, found[1]).status == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_of_its_package_runs_for_as_long_as_it_does(
    tmp_path: Path, how: signal.Signals
) -> None:
    program = laid_out(tmp_path / "t3", V1)
    code = 130 if how == signal.SIGTERM else -how
    with running(program, tmp_path / "base", code=code, T3_FAKE_PROBE_LASTS="0") as served:

        def find_only() -> list[int] | None:
            found = children(served.process.pid)  # programs are probed for a moment
            return found if len(found) == 1 else None

        (child,) = until(find_only, "nothing but the monitor")
        link = Path(f"/proc/{child}/exe")
        assert link.readlink().is_relative_to(program.resolve().parent)
        assert Path(f"/proc/{child}/comm").read_text() == "t3-resource-mon\n"
        served.process.send_signal(how)
        served.process.wait(10)
    until(lambda: not Path(f"/proc/{child}").exists(), "end of the monitor")


def test_it_probes_the_programs_of_agents_for_a_moment_again_and_again(tmp_path: Path) -> None:
    env = {"T3_FAKE_PROBE_EVERY": "0.2", "T3_FAKE_PROBE_LASTS": "0.1"}
    with running(laid_out(tmp_path / "t3", V1), tmp_path / "base", **env) as served:
        seen: set[tuple[int, str]] = set()

        def enough() -> bool:
            for child in children(served.process.pid):
                words = command(child)
                seen.update({(child, words)} if words in ("codex", "claude") else ())
            return len(seen) >= 4

        until(enough, "four probes")
        assert {words for _, words in seen} == {"codex", "claude"}


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


@pytest.mark.parametrize("told", ["false", "true"])
def test_it_is_noisy_unless_telemetry_is_off(tmp_path: Path, told: str) -> None:
    env = {"T3CODE_TELEMETRY_ENABLED": told, "T3_FAKE_TELEMETRY_EVERY": "0.1"}
    with heard(laid_out(tmp_path / "t3", V1), tmp_path / "base", **env) as (served, said):
        assert served.process.stdout is not None
        if told == "true":
            assert any("telemetry" in line for line in served.process.stdout)
        else:
            served.login(BROWSER)
            served.process.terminate()
            assert "telemetry" not in "".join(said) + served.process.stdout.read()


def test_what_it_is_asked_before_it_hears_is_never_answered(tmp_path: Path) -> None:
    """The real one listens for 0.3 s, and on a machine with other work for longer, before it does."""
    port = free_port()
    line = [
        laid_out(tmp_path / "t3", V1),
        "serve",
        "--port",
        str(port),
        "--base-dir",
        tmp_path / "b",
    ]
    env = dict(os.environ) | {"T3_FAKE_DEAF": "1"}
    with subprocess.Popen(list(map(str, line)), stdout=subprocess.PIPE, text=True, env=env) as one:
        try:
            early: list[socket.socket] = []
            until(lambda: connect(port, early), "listening")
            early[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.stdout is not None
            assert any("listens on" in text for text in one.stdout)
            with closing(socket.create_connection(("127.0.0.1", port), 5)) as late:
                late.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert late.recv(12) == b"HTTP/1.1 200"
            early[0].setblocking(False)
            with pytest.raises(BlockingIOError):
                early[0].recv(1)
            early[0].close()
        finally:
            one.kill()


def connect(port: int, into: list[socket.socket]) -> bool:
    try:
        into.append(socket.create_connection(("127.0.0.1", port), 5))
    except OSError:
        return False
    return True


def test_a_slow_one_takes_time_of_the_processor_for_a_mint(tmp_path: Path) -> None:
    before = os.times()
    assert mint(laid_out(tmp_path / "t3", V1, "slow-mint"), tmp_path / "base").returncode == 0
    after = os.times()
    assert sum(after[2:4]) - sum(before[2:4]) > 2


# -- from V1 to V2


@pytest.mark.parametrize(
    "words",
    [
        ("auth", "pairing", "create", "--ttl", "5m", "--json"),
        ("auth", "pairing", "list"),
        ("auth", "session", "list"),
    ],
)
def test_any_command_of_v2_makes_its_database_of_v1s_also_under_a_live_server(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    base, newer = tmp_path / "base", laid_out(tmp_path / "new", V2)
    old = given(base, "one", "two")
    with running(laid_out(tmp_path / "old", "0.0.26"), base) as served:
        cookie = served.login(BROWSER)
        say(served, cookie, "three")
        ledger = ask(old, LEDGER)
        assert call(newer, base, *words).returncode == 0
        new = base / "userdata/statev2.sqlite"
        assert texts(new) == ["one", "three", "two"]
        assert new.stat().st_nlink == 1
        assert not list(base.glob("userdata/.v2-import-*"))
        assert ask(old, LEDGER) == ledger, "V1's keeps its level"
        say(served, cookie, "four")
        assert served.is_logged_in(cookie)
        assert call(newer, base, *words).returncode == 0
        assert (texts(old), texts(new)) == (
            ["four", "one", "three", "two"],
            ["one", "three", "two"],
        ), "what V1 writes afterwards never gets there"
    counts = [
        ask(old, "SELECT count(*) FROM projection_threads"),
        ask(new, "SELECT count(*) FROM orchestration_v2_projection_threads"),
    ]
    assert counts[0] == counts[1] != [(0,)]
    assert ask(new, "SELECT max(migration_id) FROM effect_sql_migrations") == [(62,)]


def test_who_was_logged_in_stays_so_and_what_is_said_is_v2s(tmp_path: Path) -> None:
    base = tmp_path / "base"
    old = given(base, "one")
    port = free_port()
    with running(laid_out(tmp_path / "old", V1), base, port=port) as served:
        cookie = served.login(BROWSER)
    before = old.read_bytes()
    with running(laid_out(tmp_path / "new", V2), base, port=port) as served:
        assert served.database.name == "statev2.sqlite"
        assert served.is_logged_in(cookie)
        say(served, cookie, "two")
        newest = "SELECT application_event_version FROM orchestration_events ORDER BY sequence DESC"
        assert ask(served.database, newest)[0] == (2,)
    assert old.read_bytes() == before
    assert {path.name: path.stat().st_size for path in old.parent.glob("state*")} == {
        "state.sqlite": len(before),
        "state.sqlite-wal": 0,
        "state.sqlite-shm": 32768,
        "statev2.sqlite": served.database.stat().st_size,
    }
    assert texts(served.database) == ["one", "two"]


def test_a_later_v2_goes_on_with_an_old_copy_and_never_sees_what_v1_did_since(
    tmp_path: Path,
) -> None:
    base = tmp_path / "base"
    old, newer = given(base, "one"), laid_out(tmp_path / "new", V2)
    with running(newer, base) as served:
        say(served, served.login(BROWSER), "on V2")
    with running(laid_out(tmp_path / "old", "0.0.26"), base) as served:
        say(served, served.login(BROWSER), "on V1")
    assert texts(old) == ["on V1", "one"]
    with running(newer, base) as served:
        assert texts(served.database) == ["on V2", "one"]


def test_an_old_program_on_v2s_events_ends_before_it_listens_and_still_mints(
    tmp_path: Path,
) -> None:
    base, old = tmp_path / "base", laid_out(tmp_path / "old", V1)
    given(base, "one")
    with running(laid_out(tmp_path / "new", V2), base) as served:
        pass
    served.database.rename(base / "userdata/state.sqlite")
    assert mint(old, base).returncode == 0
    line = [old, "serve", "--port", str(free_port()), "--base-dir", base]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, "PersistenceDecodeError" in done.stdout) == (1, True)
    assert "listens" not in done.stdout


def test_v2_does_not_start_where_one_of_its_migrations_has_another_name(tmp_path: Path) -> None:
    base, program = tmp_path / "base", laid_out(tmp_path / "t3", V2)
    assert mint(program, base).returncode == 0
    with closing(sqlite3.connect(base / "userdata/statev2.sqlite")) as connection:
        connection.execute("UPDATE effect_sql_migrations SET name = 'x' WHERE migration_id = 58")
        connection.commit()
    done = mint(program, base)
    assert (done.returncode, "58 is x" in done.stdout) == (1, True)


def test_v2_waits_for_a_lock_and_reads_meanwhile(tmp_path: Path) -> None:
    with running(laid_out(tmp_path / "t3", V2), tmp_path / "base") as served:
        cookie = served.login(BROWSER)
        with closing(sqlite3.connect(served.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            assert served.ask("POST", "/fake/event", "{}", cookie=cookie).status == 500
            assert time.monotonic() - began > 4
            assert served.is_logged_in(cookie)


def test_a_later_start_of_v2_removes_v1s_events_and_nothing_that_people_have(
    tmp_path: Path,
) -> None:
    base, program = tmp_path / "base", laid_out(tmp_path / "t3", V2)
    given(base, "one", "two")
    events = "SELECT application_event_version, count(*) FROM orchestration_events GROUP BY 1"
    with running(program, base) as served:
        first = dict(ask(served.database, events))
    with running(program, base) as served:
        later = dict(ask(served.database, events))
    assert first.keys() == {1, 2}
    assert sum(later.values()) < sum(first.values())
    assert later.get(1, 0) < first[1]
    assert texts(served.database) == ["one", "two"]


def test_a_run_of_v2_is_seen_while_it_is_in_flight(tmp_path: Path) -> None:
    given(tmp_path / "base")
    with running(laid_out(tmp_path / "t3", V2), tmp_path / "base") as served:
        cookie = served.login(BROWSER)
        seen = []
        for state in ("running", "completed") * 2:
            body = json.dumps({"state": state})
            assert served.ask("POST", "/fake/turn", body, cookie=cookie).status == 200
            query = "SELECT status FROM orchestration_v2_projection_runs ORDER BY ordinal"
            seen.append([status for (status,) in ask(served.database, query)])
        assert seen == [["running"], ["completed"], ["completed", "running"], ["completed"] * 2]


# -- the broken ones


@pytest.mark.parametrize("variant", ["lost-threads", "unreadable", "blanked"])
def test_a_v2_that_loses_something_loses_it_of_its_copy_alone(tmp_path: Path, variant: str) -> None:
    base = tmp_path / "base"
    old = given(base, "one")
    before = ask(old, "SELECT * FROM projection_threads"), texts(old)
    with running(laid_out(tmp_path / "t3", V2, variant), base) as served:
        assert served.is_logged_in(served.login(BROWSER))
    assert (ask(old, "SELECT * FROM projection_threads"), texts(old)) == before
    threads = len(ask(served.database, "SELECT 1 FROM orchestration_v2_projection_threads"))
    lost = {"lost-threads": (2, []), "unreadable": (0, []), "blanked": (3, [""])}
    assert (threads, texts(served.database)) == lost[variant]


@pytest.mark.parametrize("version", ["0.0.25", V2])
def test_one_that_migrates_and_dies_can_mint_and_never_listens(
    tmp_path: Path, version: str
) -> None:
    base, program = tmp_path / "base", laid_out(tmp_path / "t3", version, "migrates-and-dies")
    given(base, "one")
    line = [program, "serve", "--port", str(free_port()), "--base-dir", base]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, "listens" in done.stdout) == (1, False)
    name = "statev2.sqlite" if version == V2 else "state.sqlite"
    (level,) = ask(base / "userdata" / name, "SELECT max(migration_id) FROM effect_sql_migrations")
    assert level == (62 if version == V2 else 31,)
    assert mint(program, base).returncode == 0


@pytest.mark.parametrize("version", ["0.0.26", V2])
def test_one_with_another_ledger_differs_below_the_level_alone(
    tmp_path: Path, version: str
) -> None:
    made = []
    for variant in ("good", "other-ledger"):
        base = tmp_path / variant
        assert mint(laid_out(tmp_path / f"t3-{variant}", version, variant), base).returncode == 0
        name = "statev2.sqlite" if version == V2 else "state.sqlite"
        made.append(ask(base / "userdata" / name, LEDGER))
    differing = [mine for mine, other in zip(*made, strict=True) if mine != other]
    assert [step for step, _ in differing] == [23, 24]


@pytest.mark.parametrize("variant", [name for name in STEPS if name not in SILENT])
def test_a_bad_v2_serves_and_imports_as_a_good_one_does(tmp_path: Path, variant: str) -> None:
    """So that it is the step alone at which it fails."""
    given(tmp_path / "base", "one")
    code = {"ignores-term": -9, "slow-stop": -9}.get(variant, 130)
    with running(laid_out(tmp_path / "t3", V2, variant), tmp_path / "base", code=code) as served:
        assert served.ask("GET", "/").status == 200
        if code < 0:
            served.process.kill()


# -- the forms of the program


@pytest.mark.parametrize("form", ["npm", "launcher", "executable", "own"])
def test_each_form_of_the_program_serves(tmp_path: Path, form: str) -> None:
    program = (
        fake_t3.install_own(tmp_path, V1)
        if form == "own"
        else fake_t3.unpack(tmp_path / "prefix", V1, form=form)
    )
    with running(program, tmp_path / "base") as served:
        assert served.is_logged_in(served.login(BROWSER))
        words = Path(f"/proc/{served.process.pid}/cmdline").read_bytes().split(b"\0")
        assert b"serve" in words
    if form == "own":
        folder = tmp_path / ".t3/runtime/versions" / V1
        assert program.readlink() == folder / "t3"
        assert (folder / ".install-complete").exists()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_one_with_node_ends_as_its_program_does(tmp_path: Path) -> None:
    with running(fake_t3.unpack(tmp_path / "t3", "0.0.26", form="node"), tmp_path / "base") as one:
        assert one.is_logged_in(one.login(BROWSER))


def test_a_launcher_without_its_platform_package_starts_nothing(tmp_path: Path) -> None:
    program = fake_t3.unpack(tmp_path / "prefix", V1, form="launcher-alone")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"Error: Cannot find module '{forms.PLATFORM}/t3'\n",
    )


@pytest.mark.parametrize("form", forms.FORMS)
def test_the_stand_in_for_npm_lays_each_form_out(tmp_path: Path, form: str) -> None:
    archive = fake_t3.tarball(tmp_path, V1, form=form, engines=">=24")
    line = ["python3", str(fake_t3.HERE / "npm"), "install", "--global", str(archive)]
    env = {"PATH": os.environ["PATH"], "npm_config_prefix": str(tmp_path / "prefix")}
    subprocess.run(line, env=env, check=True)
    program = fake_t3.unpack(tmp_path / "laid", V1, form=form)
    place = program.resolve().relative_to(tmp_path / "laid")
    assert os.access(tmp_path / "prefix" / place, os.X_OK)
    link = tmp_path / "prefix/bin/t3"
    assert link.is_symlink() == (form != "executable")
    name = forms.PLATFORM if form == "executable" else "t3"
    package = json.loads((tmp_path / f"prefix/lib/node_modules/{name}/package.json").read_text())
    assert package["engines"] == {"node": ">=24"}
