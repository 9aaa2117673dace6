"""Know T3's program: its npm package, its command lines and its version."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from t3_backup.errors import Failure

NAME = "t3"
QUIET = "T3CODE_TELEMETRY_ENABLED=false"  # of its environment: it sends nothing to its makers
MODULES_DIR = Path("lib/node_modules")  # of npm, beneath a prefix


def serve_command(program: Path, host: str, port: int, base_dir: Path) -> list[str]:
    """Give the command line of a server."""
    return [str(program), "serve", "--host", host, "--port", str(port), "--base-dir", str(base_dir)]


def mint_command(program: Path, base_dir: Path) -> list[str]:
    """Give the command line that makes and prints a credential."""
    options = ["--base-dir", str(base_dir), "--ttl", "5m", "--json"]
    return [str(program), "auth", "pairing", "create", *options]


def list_sessions_command(program: Path, base_dir: Path) -> list[str]:
    """Give the command line that lists the logins that stand."""
    return [str(program), "auth", "session", "list", "--base-dir", str(base_dir), "--json"]


def revoke_session_command(program: Path, base_dir: Path, session: str) -> list[str]:
    """Give the command line that ends one login; one that has ended is no error."""
    return [str(program), "auth", "session", "revoke", "--base-dir", str(base_dir), session]


def parse_version_output(text: str) -> str:
    """Take the version out of what `t3 --version` prints: '0.0.25' of 't3 v0.0.25'."""
    return text.strip()[:100].removeprefix("t3 v")


def find_package(program: Path) -> tuple[Path, str]:
    """Find the npm package of a program such as /usr/local/bin/t3, and its version.

    Raises Failure.
    """
    real = Path(os.path.realpath(program))
    for folder in real.parents:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
            if folder.parent.name == MODULES_DIR.name:
                return folder, str(about["version"])
    why = f"{program} is no program of an npm package, so T3's version is unknown"
    raise Failure(f"{why}: npm i -g t3@VERSION, or set T3_BIN")
