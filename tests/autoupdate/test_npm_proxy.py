"""The network of npm's cell: what gets out through the proxy, and that nothing gets to this
machine."""

from __future__ import annotations

import asyncio
import http.server
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.paths import ROOT

from t3_backup.autoupdate.programs import npm_proxy
from t3_backup.autoupdate.programs.npm_settings import Upstream, parse_settings, read_upstream


class Web(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        text = f"{self.requestline}\n{self.headers}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def web_server() -> Iterator[int]:
    """A web server of this machine; its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@contextmanager
def proxy(upstream: Upstream | None = None) -> Iterator[int]:
    """A proxy that serves; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    began: queue.Queue[Callable[[], object]] = queue.Queue()

    async def serve() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        began.put(lambda: loop.call_soon_threadsafe(task.cancel))
        with suppress(asyncio.CancelledError):
            await npm_proxy.serve(listener, upstream)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    end = began.get()
    try:
        yield listener.getsockname()[1]
    finally:
        end()
        thread.join()


def ask(port: int, *requests: str) -> str:
    """Say this over one connection, and return all that is answered up to its end."""
    with socket.create_connection(("127.0.0.1", port), 10) as there:
        said = b""
        for request in requests:
            there.sendall(f"{request}\r\n\r\n".replace("\n", "\r\n").replace("\r\r", "\r").encode())
            said += there.recv(1 << 16)
        there.shutdown(socket.SHUT_WR)
        while data := there.recv(1 << 16):
            said += data
    return said.decode()


def own_addresses() -> list[str]:
    """An address of this machine that is not of its loopback, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return []
        return [one.getsockname()[0]]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.0.0.53", "0.0.0.0", "169.254.169.254", "224.0.0.251"),
        *("255.255.255.255", "::1", "::", "fe80::1%lo", "ff02::1", "::ffff:127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", *own_addresses()),
    ],
)
def test_no_address_of_this_machine_or_its_links_may_be_connected_to(address: str) -> None:
    assert not npm_proxy.is_outside(address)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.255.3.4", "2001:db8::1", "64:ff9b::c000:201"])
def test_an_address_of_another_machine_may_be_connected_to(address: str) -> None:
    assert npm_proxy.is_outside(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "0"])
def test_a_server_of_this_machine_is_not_to_be_reached(host: str) -> None:
    with web_server() as there, proxy() as port:
        assert "GET / " in ask(there, "GET / HTTP/1.1\nHost: x\nConnection: close"), "it is there"
        assert ask(port, f"CONNECT {host}:{there} HTTP/1.1").startswith("HTTP/1.1 403 ")
        assert ask(port, f"GET http://{host}:{there}/ HTTP/1.1").startswith("HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "request_line",
    [
        "GET / HTTP/1.1",
        "CONNECT x HTTP/1.1",
        "CONNECT x:99999 HTTP/1.1",
        "GET file:///etc/passwd HTTP/1.1",
        "CONNECT x:0 HTTP/1.1",
        "",
        "x" * 70000,
    ],
)
def test_what_is_no_request_of_a_proxys_is_turned_away(request_line: str) -> None:
    with proxy() as port:
        assert ask(port, request_line).startswith("HTTP/1.1 400 ")


def test_a_name_that_is_none_is_told() -> None:
    with proxy() as port:
        assert ask(port, "CONNECT no-such-name.invalid:443 HTTP/1.1").startswith("HTTP/1.1 502 ")


def test_what_is_outside_is_reached_by_a_tunnel_and_by_a_plain_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(npm_proxy, "is_outside", lambda _: True)
    with web_server() as there, proxy() as port:
        said = ask(port, f"CONNECT localhost:{there} HTTP/1.1", "GET /a HTTP/1.1\nHost: x")
        assert said.startswith("HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK")
        assert "GET /a HTTP/1.1" in said
        headers = "Host: x\nProxy-Connection: keep-alive\nProxy-Authorization: Basic x\nAccept: y"
        said = ask(port, f"GET http://localhost:{there}/b?c HTTP/1.1\n{headers}")
        assert "GET /b?c HTTP/1.1\n" in said
        assert "Accept: y" in said
        assert "Proxy-" not in said
        assert "Connection: close" in said


def test_a_proxy_that_an_administrator_named_gets_all_but_what_they_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(npm_proxy, "is_outside", lambda _: True)
    with web_server() as there:
        upstream = Upstream("127.0.0.1", there, "user:p%40ss", ("left.out",))
        with proxy(upstream) as port:
            said = ask(port, "GET http://registry.example/x HTTP/1.1\nHost: x\nConnection: close")
            assert "GET http://registry.example/x HTTP/1.1" in said, "as it was asked for"
            assert "Proxy-Authorization: Basic dXNlcjpwQHNz" in said
            said = ask(port, f"CONNECT no.left.out:{there} HTTP/1.1")
            assert said.startswith("HTTP/1.1 502 "), "it is asked for directly"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("registry=https://x/\n; proxy=http://no\n# https-proxy=http://no", None),
        ("proxy=null", None),
        ("proxy = http://proxy.example:3128/", Upstream("proxy.example", 3128)),
        ('https-proxy="http://u:p@proxy.example"', Upstream("proxy.example", 80, "u:p")),
        (
            "proxy=proxy.example:8080\nnoproxy=a.example, .b.example,",
            Upstream("proxy.example", 8080, "", ("a.example", ".b.example")),
        ),
    ],
)
def test_the_proxy_is_taken_from_npms_global_configuration(
    text: str, expected: Upstream | None, tmp_path: Path
) -> None:
    (tmp_path / "npmrc").write_text(text)
    assert read_upstream([tmp_path / "npmrc"]) == expected
    assert read_upstream([]) is None


def test_a_host_is_left_out_by_its_name_or_its_domain() -> None:
    one = Upstream("p", 1, "", ("a.example", ".b.example", "*.c.example"))
    hosts = ("a.example", "x.a.example", "b.example", "x.c.example")
    assert all(map(one.leaves_out, hosts))
    assert not any(map(one.leaves_out, ("ba.example", "example", "x")))
    assert parse_settings("a=1\n b = '2' \n;c=3\nd") == {"a": "1", "b": "2"}


@pytest.fixture
def free_port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
    return port


def test_a_program_inside_hands_its_listener_out_before_it_runs(free_port: int) -> None:
    """What connects to it speaks to the process outside."""
    inside, outside = socket.socketpair()
    start = f"from t3_backup.autoupdate.programs import npm_inside; npm_inside.PORT = {free_port}"
    client = (
        "import socket, sys; assert sys.stdin.read() == ''; "
        f"s = socket.create_connection(('127.0.0.1', {free_port})); "
        "s.sendall(b'CONNECT localhost:1 HTTP/1.1\\r\\n\\r\\n'); print(s.recv(100))"
    )
    module = [sys.executable, "-m", "t3_backup.autoupdate.programs.npm_proxy"]
    with inside, outside, subprocess.Popen(module, cwd=ROOT, stdin=outside) as server:
        line = [sys.executable, "-c", f"{start}; npm_inside.main()"]
        done = subprocess.run(
            [*line, sys.executable, "-c", client],
            cwd=ROOT,
            stdin=inside,
            capture_output=True,
            text=True,
            check=False,
        )
        server.kill()
    assert done.stdout.startswith("b'HTTP/1.1 403 Forbidden"), done
