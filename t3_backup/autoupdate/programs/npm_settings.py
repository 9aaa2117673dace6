"""Know npm's global configuration: where it is, and which proxy it names."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# the first that is there is npm's: of Debian, of a distribution of Node's, of one by hand
GLOBAL_FILES = (Path("/etc/npmrc"), Path("/usr/etc/npmrc"), Path("/usr/local/etc/npmrc"))
_PROXIES = ("https-proxy", "proxy", "http-proxy")


@dataclass(frozen=True)
class Upstream:
    """The proxy that an administrator has named."""

    host: str
    port: int
    login: str = ""  # USER:PASSWORD, as in a URL
    without: tuple[str, ...] = ()  # hosts and domains that are called without it

    def leaves_out(self, host: str) -> bool:
        """Tell whether a host is called without it."""
        return any(f".{host}".endswith(f".{one.strip('*.')}") for one in self.without)


def global_files() -> list[Path]:
    """List the file of the global configuration; none where there is none."""
    return [path for path in GLOBAL_FILES if path.is_file()][:1]


def read_upstream(files: Iterable[Path]) -> Upstream | None:
    """Read which proxy is named; None without one. Raises OSError and ValueError."""
    values: dict[str, str] = {}
    for path in files:
        values |= parse_settings(path.read_text(encoding="utf-8", errors="replace"))
    named = next(filter(None, (values.get(name, "") for name in _PROXIES)), "")
    if named in ("", "null", "false"):
        return None
    url = urllib.parse.urlsplit(named if "://" in named else f"http://{named}")
    if url.scheme != "http" or not url.hostname:
        raise ValueError("npm's proxy must be one of http://")
    login = url.netloc.rpartition("@")[0]
    without = values.get("noproxy", "").replace(" ", "").split(",")
    return Upstream(url.hostname, url.port or 80, login, tuple(filter(None, without)))


def parse_settings(text: str) -> dict[str, str]:
    """Parse lines of `name = value` of an npmrc, of which only plain ones are of use here. Pure."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            found[name.strip()] = value.strip().strip("\"'")
    return found
