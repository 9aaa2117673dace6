"""Logging in across versions: what serves it is found out, and every way in which it can fail is
told from the others."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from fake_t3.served import Served, credential, free_port, laid_out, running
from support import programs
from support.paths import ROOT
from support.users import needs_root

import t3_backup
from demo.users import User
from t3_backup.t3 import commands, pair_command, port_owner
from t3_backup.t3.endpoints import PAIRING_PATHS
from t3_backup.t3.pairing import PairingFailed, pair

BOOTSTRAP, BROWSER = "/api/auth/bootstrap", "/api/auth/browser-session"


@contextmanager
def serving(folder: Path, version: str, variant: str = "good") -> Iterator[Served]:
    """A running stand-in in a new folder."""
    with running(laid_out(folder, version, variant), folder / "base") as served:
        yield served


def pair_with(served: Served) -> str:
    """Log in, and return the endpoint that served it."""
    return pair(served.program, served.base, served.port)


@pytest.mark.parametrize(
    ("version", "endpoint"), [("0.0.24", BOOTSTRAP), ("0.0.25", BROWSER), ("0.0.26", BROWSER)]
)
def test_each_version_is_logged_in_to_by_its_own_endpoint(
    tmp_path: Path, version: str, endpoint: str
) -> None:
    with serving(tmp_path / "t3", version) as served:
        assert pair_with(served) == endpoint
        assert pair_with(served) == endpoint, "and again, by a new credential"


def test_servers_of_both_versions_at_once_are_told_apart(tmp_path: Path) -> None:
    """As in the middle of a bump: some accounts are moved, some are not."""
    with ExitStack() as stack:
        versions = ("0.0.24", "0.0.25", "0.0.24", "0.0.26")
        all_of_them = [
            stack.enter_context(serving(tmp_path / str(n), version))
            for n, version in enumerate(versions)
        ]
        assert [pair_with(served) for served in all_of_them] == [
            BOOTSTRAP,
            BROWSER,
            BOOTSTRAP,
            BROWSER,
        ]


def test_an_account_that_is_moved_and_moved_back_is_followed(tmp_path: Path) -> None:
    old, new = laid_out(tmp_path / "old", "0.0.24"), laid_out(tmp_path / "new", "0.0.25")
    base, copy = tmp_path / "base", tmp_path / "copy"
    with running(old, base) as served:
        assert pair_with(served) == BOOTSTRAP
    shutil.copyfile(served.database, copy)
    with running(new, base) as served:
        assert pair_with(served) == BROWSER
    shutil.copyfile(copy, served.database)
    with running(old, base) as served:
        assert pair_with(served) == BOOTSTRAP


@pytest.mark.parametrize(
    ("variant", "step", "reason"),
    [
        ("pairing-renamed", "exchange", "this version pairs by another name"),
        ("mint-broken", "mint", "ended with 1: SqlError: no such column"),
        ("no-cookie", "exchange", "set no cookie t3_session"),
        ("not-authenticated", "session", "not authenticated"),
    ],
)
def test_a_version_that_nobody_can_log_in_to_is_told_by_its_step(
    tmp_path: Path, variant: str, step: str, reason: str
) -> None:
    with serving(tmp_path / "t3", "0.0.27", variant) as served:
        with pytest.raises(PairingFailed, match=reason) as failed:
            pair_with(served)
        assert served.ask("GET", "/").status == 200, "all that a probe of liveness would have seen"
    assert failed.value.step == step


def test_asking_an_endpoint_that_is_not_there_does_not_use_the_credential_up(
    tmp_path: Path,
) -> None:
    """The one credential is good for as many names as are tried; one that was taken is good for
    none."""
    with serving(tmp_path / "t3", "0.0.24") as served:
        one = credential(served.program, served.base)
        assert [
            served.exchange(path, one).status
            for path in (BROWSER, BROWSER, BOOTSTRAP, BROWSER, BOOTSTRAP)
        ] == [
            404,
            404,
            200,
            404,
            401,
        ]


def test_an_old_server_whose_database_a_newer_command_has_migrated_fails_at_the_mint(
    tmp_path: Path,
) -> None:
    """All else goes on answering 200."""
    with serving(tmp_path / "old", "0.0.24") as served:
        newer = laid_out(tmp_path / "new", "0.0.25")
        subprocess.run(
            [newer, "auth", "pairing", "list", "--base-dir", served.base],
            check=True,
            capture_output=True,
        )
        with pytest.raises(
            PairingFailed, match="table auth_pairing_links has no column named role"
        ) as failed:
            pair_with(served)
        assert failed.value.step == "mint"
        with pytest.raises(PairingFailed, match="POST /api/auth/bootstrap answered 500") as failed:
            pair(newer, served.base, served.port)
        assert failed.value.step == "exchange"
        assert served.ask("GET", "/").status == 200


def request(there: socket.socket) -> list[str]:
    """Take a request whole (closing with some of it unread would spoil the answer); its lines but
    the body."""
    lines, length = [], 0
    with there.makefile("rb") as file:
        while line := file.readline().decode().rstrip():
            lines.append(line)
            if line.lower().startswith("content-length:"):
                length = int(line.partition(":")[2])
        file.read(length)
    return lines


class Script:
    """A server that says what a test wants it to, request by request.

    First it is asked how the login cookie is called, which `told` answers.
    """

    def __init__(
        self, *answers: bytes | Callable[[socket.socket], None], told: bytes | None = None
    ) -> None:
        self.asked: list[str] = []
        self.headers: list[str] = []
        self._answers = [NOT_TOLD if told is None else told, *answers]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for answer in self._answers:
            there, _ = self._listener.accept()
            with there:
                first, *headers = request(there)
                self.asked.append(first)
                self.headers += headers
                if callable(answer):
                    answer(there)
                else:
                    there.sendall(answer)


def http(status: int, body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


NOT_TOLD = http(200, '{"authenticated": false}')
AUTHENTICATED = '{"authenticated": true}'
COOKIE = "Set-Cookie: t3_session=abc.def; Path=/; HttpOnly; SameSite=Lax"
GOOD = http(200, AUTHENTICATED, COOKIE)


def hang(there: socket.socket) -> None:
    assert there.recv(1) == b"", "the other side has had enough"


def trickle(there: socket.socket) -> None:
    there.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")
    while True:
        try:
            there.sendall(b" ")
        except OSError:
            return
        time.sleep(0.05)


def flood(there: socket.socket) -> None:
    """More than anybody wants, for as long as it is taken."""
    try:
        there.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            there.sendall(b" " * 65536)
    except OSError:
        return


def headers_without_end(there: socket.socket) -> None:
    try:
        there.sendall(b"HTTP/1.1 200 X\r\n")
        while True:
            there.sendall(b"X: " + b"y" * 4000 + b"\r\n")
    except OSError:
        return


def bomb(there: socket.socket) -> None:
    """A small body that unpacks to a large one."""
    body = gzip.compress(AUTHENTICATED.encode() + b" " * (16 << 20))
    headers = ("Content-Encoding: gzip", f"Content-Length: {len(body)}", COOKIE)
    head = "\r\n".join(("HTTP/1.1 200 X", *headers, "", ""))
    there.sendall(head.encode() + body)


def trickle_of_headers(there: socket.socket) -> None:
    try:
        for byte in b"HTTP/1.1 200 X\r\n" + b"X: y\r\n" * 10_000:
            there.sendall(bytes([byte]))
            time.sleep(0.05)
    except OSError:
        return


MINTED = r"""{\n "id": "1",\n "credential": "ABCDEFGH2345"\n}\n"""
MINTS = f"echo 'ExperimentalWarning' >&2; printf '{MINTED}'"


@pytest.mark.parametrize(
    ("answers", "step", "reason"),
    [
        ([http(401)], "exchange", "browser-session answered 401"),
        ([http(500)], "exchange", "browser-session answered 500"),
        ([http(404), http(401)], "exchange", "bootstrap answered 401"),
        ([http(404), http(404)], "exchange", "there is none of"),
        ([http(302, "", "Location: /elsewhere")], "exchange", "answered 302"),
        ([hang], "exchange", "did not answer in time"),
        ([trickle], "exchange", "did not answer in time"),
        ([trickle_of_headers], "exchange", "did not answer in time"),
        ([headers_without_end], "exchange", "POST"),
        ([bomb], "exchange", "no JSON"),
        ([lambda there: None], "exchange", "POST"),
        ([flood], "exchange", "more than 65536 bytes"),
        ([http(200, AUTHENTICATED, "X: " + "y" * 100_000, COOKIE)], "exchange", "POST"),
        ([b"nonsense\r\n\r\n"], "exchange", "POST"),
        ([http(200, "<html>", COOKIE)], "exchange", "no JSON"),
        ([http(200, "[]", COOKIE)], "exchange", "no object"),
        ([http(200, "[" * 60_000, COOKIE)], "exchange", "no JSON"),
        ([http(200, "{}", COOKIE)], "exchange", "does not say authenticated"),
        ([http(200, AUTHENTICATED)], "exchange", "set no cookie"),
        ([http(200, AUTHENTICATED, "Set-Cookie: other=1")], "exchange", "set no cookie"),
        ([GOOD, http(200, '{"authenticated": false}')], "session", "not authenticated"),
        ([GOOD, http(200, "{}")], "session", "not authenticated"),
        ([GOOD, http(500)], "session", "answered 500"),
        ([GOOD, hang], "session", "did not answer in time"),
        ([GOOD, trickle], "session", "did not answer in time"),
        ([GOOD, flood], "session", "more than 65536 bytes"),
        ([GOOD, http(302, "", "Location: /login")], "session", "answered 302"),
        ([GOOD, http(200, "<html>")], "session", "no JSON"),
        ([GOOD, http(200, '{"authenticated": "yes"}')], "session", "not authenticated"),
    ],
)
def test_every_other_answer_is_the_verdict(
    t3_script: Callable[[str], Path], tmp_path: Path, answers: list[bytes], step: str, reason: str
) -> None:
    script = Script(*answers)
    began = time.monotonic()
    with pytest.raises(PairingFailed, match=reason) as failed:
        pair(t3_script(MINTS), tmp_path, script.port, seconds=3 if "in time" in reason else 30)
    assert failed.value.step == step
    assert failed.value.slow == ("in time" in reason)
    assert script.asked[0].startswith("GET /api/auth/session ")
    assert len(script.asked) == 1 + len(answers), "no answer but a 404 has a second one asked"
    assert time.monotonic() - began < 20
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "ended with 3"),
        ("echo 'table is locked'; exit 1", "ended with 1: table is locked"),
        ("echo hello", "no JSON, but 'hello'"),
        ("echo '{}'", "no credential"),
        ("""echo '{"credential": "a b"}'""", "no credential"),
        ("echo '{' >&2; sleep 60", "did not end within"),
        ("sleep 60 & exit 0", "did not end within"),
        ("yes", "did not end within"),
        ("head -c 10000000 /dev/zero", "more than 65536 bytes"),
        (f"{MINTS}; head -c 100000 /dev/zero | tr '\\0' ' '", "more than 65536 bytes"),
        ("head -c 10000000 /dev/zero >&2; exit 3", "ended with 3"),
    ],
)
def test_a_mint_that_fails_hangs_or_babbles_is_told(
    t3_script: Callable[[str], Path], tmp_path: Path, script: str, reason: str
) -> None:
    with pytest.raises(PairingFailed, match=reason) as failed:
        pair(
            t3_script(f"echo $$ >{tmp_path}/pid\n{script}"),
            tmp_path,
            1,
            seconds=3 if "did not end" in reason else 30,
        )
    assert failed.value.step == "mint"
    assert failed.value.slow == ("did not end" in reason)
    group = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 20
    while is_alive(group):
        assert time.monotonic() < until, "something of it has outlived it"
        time.sleep(0.01)


def test_of_a_babble_little_is_kept() -> None:
    async def read() -> int:
        stream = asyncio.StreamReader()
        stream.feed_data(b"x" * 1_000_000)
        stream.feed_eof()
        return len(await commands.read_some(stream, 65536))

    assert asyncio.run(read()) == 65537


def is_alive(group: int) -> bool:
    """Whether there is a process of this group that is no zombie (who reaps those is none of
    ours)."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            return True
    return False


def test_the_cookie_is_given_back_as_it_came(
    t3_script: Callable[[str], Path], tmp_path: Path
) -> None:
    value = '"a\\054b=="'
    exchanged = http(
        200, AUTHENTICATED, "Set-Cookie: other=1; Path=/", f"Set-Cookie: t3_session={value}; Path=/"
    )
    script = Script(exchanged, http(200, AUTHENTICATED))
    assert pair(t3_script(MINTS), tmp_path, script.port) == BROWSER
    assert f"Cookie: t3_session={value}" in script.headers


def told(name: object) -> bytes:
    """A server's word on how its login cookie is called."""
    return http(200, json.dumps({"authenticated": False, "auth": {"sessionCookieName": name}}))


def setting(*cookies: str) -> bytes:
    return http(200, AUTHENTICATED, *(f"Set-Cookie: {one}; Path=/; HttpOnly" for one in cookies))


@pytest.mark.parametrize(
    ("told", "cookies", "given"),
    [
        (told("t3_session_3773_656dc8b66507"), ["t3_session_3773_656dc8b66507=a.b"], 0),
        (told("t4_login"), ["t3_session=old", "t4_login=a.b"], 1),
        (told("t4_login"), ["t3_session_656dc8b66507=a.b"], 0),
        (NOT_TOLD, ["other=1", "t3_session_656dc8b66507=a.b"], 1),
        (http(500), ["t3_session=a.b"], 0),
        (http(404, "<html>"), ["t3_session=a.b"], 0),
        (http(200, "<html>"), ["t3_session=a.b"], 0),
        (http(200, '{"auth": []}'), ["t3_session=a.b"], 0),
        (told("x=1; t3_session"), ["t3_session=a.b"], 0),
        (told(""), ["t3_session=a.b"], 0),
        (told("t" * 129), ["t3_session=a.b"], 0),
        (told(["t3_session"]), ["t3_session=a.b"], 0),
    ],
)
def test_the_login_cookie_is_known_by_the_server_s_word_or_by_its_name(
    t3_script: Callable[[str], Path], tmp_path: Path, told: bytes, cookies: list[str], given: int
) -> None:
    script = Script(setting(*cookies), http(200, AUTHENTICATED), told=told)
    assert pair(t3_script(MINTS), tmp_path, script.port) == BROWSER
    sent = [line for line in script.headers if line.startswith("Cookie:")]
    assert sent == [f"Cookie: {cookies[given]}"]


@pytest.mark.parametrize(
    ("told", "cookies", "reason"),
    [
        (NOT_TOLD, [], "set no cookie t3_session or t3_session_..."),
        (NOT_TOLD, ["sid=1", "theme=2"], "t3_session_..., but sid, theme"),
        (told("t4_login"), ["sid=1"], "set no cookie t4_login, but sid"),
        (told("t4_login"), ["t4_login=; Max-Age=0"], "set no cookie t4_login, but t4_login"),
        (NOT_TOLD, ["t3_session=; Max-Age=0"], "t3_session_..., but t3_session"),
    ],
)
def test_which_cookies_were_set_is_told_where_none_is_of_a_login(
    t3_script: Callable[[str], Path], tmp_path: Path, told: bytes, cookies: list[str], reason: str
) -> None:
    script = Script(setting(*cookies), told=told)
    with pytest.raises(PairingFailed, match="set no cookie") as failed:
        pair(t3_script(MINTS), tmp_path, script.port)
    assert failed.value.reason.endswith(reason)


def test_a_server_that_never_answers_its_first_request_is_asked_again(
    t3_script: Callable[[str], Path], tmp_path: Path
) -> None:
    """So it is with 0.0.42 in the first moment after it listens."""
    script = Script(NOT_TOLD, GOOD, http(200, AUTHENTICATED), told=hang)
    assert pair(t3_script(MINTS), tmp_path, script.port, seconds=30) == BROWSER


def test_a_login_says_that_it_is_ours(t3_script: Callable[[str], Path], tmp_path: Path) -> None:
    script = Script(GOOD, http(200, AUTHENTICATED))
    pair(t3_script(MINTS), tmp_path, script.port)
    agents = [line for line in script.headers if line.lower().startswith("user-agent:")]
    assert agents == [f"User-Agent: t3-backup/{t3_backup.__version__} (login check)"] * 3


ODD = "n0-credential_of.today"  # which has no form that anybody would know
SECRETS = (ODD, "eyJ2IjoxfQ.c2lnbmVk", "ABCDEFGH2345")


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        ("echo 'ABCDEFGH2345'", []),
        ("""echo '{"credential": "n0-credential_of.today", '""", []),
        ("""echo '["ABCDEFGH2345"]'""", []),
        ("echo 'Error: ABCDEFGH2345 was used'; exit 1", []),
        ("echo 'Error: Token: n0-credential_of.today' >&2; exit 1", []),
        ("", [http(200, f"who sent {ODD}?")]),
        ("", [http(200, f'["{ODD}"]')]),
        ("", [b"HTTP/1.1 200 X\r\n" + ODD.encode() + b"\r\n\r\n"]),
        ("", [setting("t3_session=eyJ2IjoxfQ.c2lnbmVk"), http(200, "no: eyJ2IjoxfQ.c2lnbmVk")]),
        ("", [setting(f"t3_session={ODD}x"), http(200, f"no: {ODD}x")]),
        ("", [setting("eyJ2IjoxfQ.c2lnbmVk=1")]),
        ("", [setting(f"{ODD}=1")]),
    ],
)
def test_no_failure_tells_the_credential_or_the_cookie(
    t3_script: Callable[[str], Path], tmp_path: Path, script: str, answers: list[bytes]
) -> None:
    server = Script(*answers)
    program = t3_script(script or f"""echo '{{"credential": "{ODD}"}}'""")
    with pytest.raises(PairingFailed) as failed:
        pair(program, tmp_path, server.port)
    assert failed.value.step == ("mint" if script else "session" if answers[1:] else "exchange")
    assert not [one for one in SECRETS if one in str(failed.value)], failed.value


def test_a_server_that_is_not_there_is_told(
    t3_script: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(
        PairingFailed, match=r"POST /api/auth/browser-session: nobody listens on port [0-9]+"
    ) as failed:
        pair(t3_script(MINTS), tmp_path, free_port(), seconds=5)
    assert failed.value.step == "exchange"


@needs_root
def test_who_has_taken_the_port_of_another_gets_no_credential_of_his(
    t3_script: Callable[[str], Path], tmp_path: Path
) -> None:
    """Between its stop and its start a server's port is anybody's; with the credential one is
    in."""
    line, pipe = programs.line("take_credential.py"), subprocess.PIPE
    with subprocess.Popen(
        line, stdout=pipe, text=True, user=65534, group=65534, extra_groups=()
    ) as thief:
        assert thief.stdout is not None
        port = int(thief.stdout.readline())
        with pytest.raises(
            PairingFailed, match=f"it is uid 65534 who listens on port {port}"
        ) as failed:
            pair(t3_script(MINTS), tmp_path, port, seconds=5)
        assert failed.value.step == "exchange"
        thief.kill()
        assert thief.stdout.read() == "", "nobody has even called"


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::"),
        (socket.AF_INET6, "::ffff:127.0.0.1"),
    ],
)
def test_whose_server_it_is_can_be_told_wherever_it_listens(
    family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        port = server.getsockname()[1]
        assert port_owner.listener_uids(port) == []
        server.listen()
        assert port_owner.listener_uids(port) == [os.geteuid()]


def test_no_proxy_is_asked(
    t3_script: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(GOOD, http(200, AUTHENTICATED))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert pair(t3_script(MINTS), tmp_path, script.port, seconds=5) == PAIRING_PATHS[0]
    session = "GET /api/auth/session HTTP/1.1"
    assert script.asked == [session, f"POST {BROWSER} HTTP/1.1", session]


def test_the_command_says_it_in_its_exit_status_and_as_json(tmp_path: Path) -> None:
    def command(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "t3_backup.t3.pair_command", *map(str, words)]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    with serving(tmp_path / "t3", "0.0.24") as served:
        words = ("--t3", served.program, "--base-dir", served.base, "--port", served.port)
        good = command(*words, "--json")
        assert (good.returncode, json.loads(good.stdout)) == (
            0,
            {"paired": True, "endpoint": BOOTSTRAP, "left": ""},
        )
        assert command(*words).stdout == f"paired by {BOOTSTRAP}\n"
    bad = command(*words, "--json")
    assert (bad.returncode, bad.stderr) == (1, "")
    document = json.loads(bad.stdout)
    assert (document.keys(), document["paired"], document["step"]) == (
        {"paired", "step", "reason", "slow"},
        False,
        "exchange",
    )
    plain = command(*words)
    assert (plain.returncode, plain.stdout) == (1, f"not paired: exchange: {document['reason']}\n")


@needs_root
def test_root_is_told_to_call_it_as_the_owner_and_nothing_is_begun(alice: User) -> None:
    """A -wal of root's next to their database would lock their server out of it."""
    program = laid_out(alice.home.parent / "t3", "0.0.24")
    words = [
        "--t3",
        str(program),
        "--base-dir",
        str(alice.database.parent.parent),
        "--port",
        str(free_port()),
    ]
    before = sorted(alice.database.parent.iterdir())

    def command(*prefix: str) -> subprocess.CompletedProcess[str]:
        line = [*prefix, sys.executable, "-m", "t3_backup.t3.pair_command", *words]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(alice.home)}
        return subprocess.run(
            line, cwd=alice.home, env=environ, capture_output=True, text=True, check=False
        )

    refused = command()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"t3-pair: {words[3]} belongs to {alice.name}")
    assert refused.stderr.endswith(f": runuser -u {alice.name} -- t3-pair {' '.join(words)}\n")
    assert sorted(alice.database.parent.iterdir()) == before
    assert command("runuser", "-u", alice.name, "--").returncode == 1, (
        "they may; but no server runs"
    )
    assert {path.owner() for path in alice.database.parent.iterdir()} == {alice.name}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--port", "1"),
        ("--t3", "t3", "--base-dir", ".", "--port", "0"),
        ("--t3", "t3", "--base-dir", ".", "--port", "65536"),
        ("--t3", "t3", "--base-dir", ".", "--port", "x"),
        ("--t3", "t3", "--base-dir", ".", "--port", "1", "--seconds", "nan"),
        ("--t3", "t3", "--base-dir", ".", "--port", "1", "--seconds", "-1"),
        ("--t3", "t3", "--base-dir", ".", "--port", "1", "--fast"),
    ],
)
def test_wrong_use_is_one_line_and_nothing_is_begun(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        pair_command.main(words)
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.startswith("t3-pair: ")
    assert said.err.count("\n") == 1


def test_a_folder_that_is_not_there_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mint would begin a new state in it, and the server answer that it doesn't know the
    credential."""
    wrong = tmp_path / "wrong"
    assert (
        pair_command.main(
            [
                "--t3",
                str(laid_out(tmp_path / "t3", "0.0.24")),
                "--base-dir",
                str(wrong),
                "--port",
                "1",
            ]
        )
        == 2
    )
    assert capsys.readouterr() == ("", f"t3-pair: --base-dir {wrong}: No such file or directory\n")
    assert not wrong.exists()
