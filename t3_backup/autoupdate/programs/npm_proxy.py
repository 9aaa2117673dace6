"""Give npm's cell the network that it needs, and no way to this machine: an HTTP proxy.

It runs as a transient unit, outside of the cell, with a user that owns nothing. It takes a socket
that listens inside of the cell from standard input, and serves CONNECT and plain requests. An
address of this machine, of its loopback or its links is refused: there are servers of users, which
believe whoever calls from here, and what clouds tell a machine alone. Where npm's own configuration
names a proxy, all goes to that one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import re
import socket
import sys
import urllib.parse
from pathlib import Path

from t3_backup.autoupdate.programs.npm_settings import Upstream, read_upstream

_HEAD_BYTES = 64 << 10
_CHUNK_BYTES = 64 << 10
_SECONDS = 30.0  # for a head, a name and a connection
_HOP_BY_HOP = re.compile(rb"(?im)^(?:(?:proxy-)?connection|proxy-authorization):[^\r\n]*\r\n")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # of RFC 6052, with an IPv4 address in each
_CONNECT = re.compile(rb"CONNECT ([^\s/@]+):(\d{1,5}) HTTP/1\.[01]\r\n")
_PLAIN = re.compile(rb"([A-Z]{1,20}) http://([^\s/@]+?)(?::(\d{1,5}))?(/\S*)? HTTP/1\.[01]\r\n")


def is_outside(address: str) -> bool:
    """Tell whether an IP address is that of another machine, and no special one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        in_it = ipaddress.IPv4Address(found.packed[-4:]) if found in _NAT64 else None
        found = in_it or found.ipv4_mapped or found.sixtofour or found
    special = (
        found.is_loopback
        or found.is_link_local
        or found.is_unspecified
        or found.is_multicast
        or found.is_reserved
    )
    return not special and not _is_own(str(found), found.version)


def _is_own(address: str, version: int) -> bool:
    """Tell whether it is this machine's: an address that a socket can be bound to."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((address, 0))
    except OSError:
        return False
    return True


async def serve(listener: socket.socket, upstream: Upstream | None) -> None:
    """Serve what connects to `listener`, for ever."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, EOFError, TimeoutError):
            await _handle(reader, writer, upstream)

    server = await asyncio.start_server(handle, sock=listener, limit=_HEAD_BYTES)
    await server.serve_forever()


async def _handle(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: Upstream | None
) -> None:
    try:
        async with asyncio.timeout(_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            there, head, answer = await _open(head, upstream)
    except (ValueError, asyncio.LimitOverrunError):
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    except PermissionError:
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    except (OSError, TimeoutError):
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
    else:
        with contextlib.closing(there[1]):
            there[1].write(head)
            writer.write(answer)
            await asyncio.gather(_pass_on(reader, there[1]), _pass_on(there[0], writer))
            return
    await writer.drain()


async def _open(
    head: bytes, upstream: Upstream | None
) -> tuple[tuple[asyncio.StreamReader, asyncio.StreamWriter], bytes, bytes]:
    """Connect to where a request is to go; give what is to be sent there, and what is answered.

    Raises ValueError for what is no request, PermissionError for what must not be reached, and
    OSError.
    """
    if match := _CONNECT.match(head):
        host, port, sent = match[1].decode("ascii"), int(match[2]), b""
        answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
    elif match := _PLAIN.match(head):
        host, port = match[2].decode("ascii"), int(match[3] or 80)
        rest = _HOP_BY_HOP.sub(b"", head[match.end() :])
        sent = b"%s %s HTTP/1.1\r\nConnection: close\r\n%s" % (match[1], match[4] or b"/", rest)
        answer = b""
    else:
        raise ValueError("no request of a proxy's")
    if not 0 < port < 65536:
        raise ValueError("no port")
    host = host.strip("[]")
    if upstream is not None and not upstream.leaves_out(host):
        first, _, rest = head.partition(b"\r\n")
        sent = first + b"\r\n" + _authorization(upstream) + rest
        return await asyncio.open_connection(upstream.host, upstream.port), sent, b""
    return await _connect(host, port), sent, answer


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address of a host that answers, and that may be reached."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    if not (allowed := [one for one in addresses if is_outside(one)]):
        raise PermissionError(host)
    for address in allowed[:-1]:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(address, port)
    return await asyncio.open_connection(allowed[-1], port)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends, and the end too."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def _authorization(upstream: Upstream) -> bytes:
    if not upstream.login:
        return b""
    login = urllib.parse.unquote_to_bytes(upstream.login)
    return b"Proxy-Authorization: Basic %s\r\n" % base64.b64encode(login)


def main() -> None:
    """Take the socket from standard input, and serve; the words are npm's configuration files."""
    with socket.socket(fileno=0) as cell:
        _, descriptors, _, _ = socket.recv_fds(cell, 1, 1)
    if descriptors:  # else the cell has ended before
        listener = socket.socket(fileno=descriptors[0])
        asyncio.run(serve(listener, read_upstream(map(Path, sys.argv[1:]))))


if __name__ == "__main__":
    main()
