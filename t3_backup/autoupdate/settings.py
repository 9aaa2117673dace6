"""Read the settings of t3-autoupdate: defaults, the file, environment, flags.

The user map, the store and the folder of the metrics are those of t3-backup.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from t3_backup.config import SECONDS, Known, absolute, resolve, setting, table, whole
from t3_backup.t3 import versions

# npm of Debian installs below /usr/local, that of others below /usr
_BINS = ("/usr/local/bin/t3", "/usr/bin/t3")
DEFAULTS_FILE = Path("/etc/default/t3-autoupdate")


def _version(text: str) -> str:
    if not versions.is_version(text):
        raise ValueError("a version, such as 0.0.25")
    return text


def _spec(text: str) -> str:
    if "{version}" not in text or text.startswith("-"):
        raise ValueError("what npm can install, with {version} in it, such as t3@{version}")
    return text


@dataclass(frozen=True)
class Settings:
    """The values of one command, and the table of all settings.

    To add one, add a field here and run tools/settings_files.py.
    """

    pin: str = setting(
        "T3_PIN",
        "0.0.24",
        _version,
        "The version that all accounts are to be on. No account is taken down to it.",
    )
    npm_spec: str = setting(
        "T3_NPM_SPEC",
        "t3@{version}",
        _spec,
        "What npm is asked for; `{version}` stands for the version. The one executable is "
        "`@t3code/t3-linux-x64@{version}`; an archive on this machine (`/srv/t3-{version}.tgz`) "
        "needs no network.",
    )
    bin: Path = setting(
        "T3_BIN",
        _BINS[0],
        absolute,
        "What people call as `t3`; it becomes the launcher. "
        f"By default `{_BINS[1]}` where only that one is there.",
    )
    serve: Path = setting(
        "T3_SERVE_DIR",
        "/etc/t3-serve",
        absolute,
        "The folder with `USER.env`, in which `T3_PORT` is the port of the server.",
    )
    root: Path = setting(
        "T3_AUTOUPDATE_ROOT",
        "/var/lib/t3-autoupdate",
        absolute,
        "The folder of programs, links and journal.",
    )
    freeze: Path = setting(
        "T3_AUTOUPDATE_FREEZE",
        "/etc/t3-autoupdate.freeze",
        absolute,
        "While this file is there, no timer changes anything, and a bump by hand is refused.",
    )
    watch: int = setting(
        "T3_AUTOUPDATE_WATCH",
        "10",
        whole(1, 3600),
        "How long the gate watches a server that seems well.",
        SECONDS,
    )
    patience: int = setting(
        "T3_AUTOUPDATE_PATIENCE",
        "60",
        whole(1, 3600),
        "Time limit for each step of a login, and for a server that was started to listen; for "
        "that it has more where its databases are large.",
        SECONDS,
    )
    settle: int = setting(
        "T3_AUTOUPDATE_SETTLE",
        "3",
        whole(0, 3600),
        "How long a server must stay up after the login.",
        SECONDS,
    )


KNOWN: Known = table(Settings)


def load(environ: Mapping[str, str], defaults_file: Path = DEFAULTS_FILE) -> Settings:
    """Read the settings of a command. Raises UsageError for the first that makes no sense."""
    there = next(filter(os.path.lexists, _BINS), _BINS[0])
    known = {**KNOWN, "bin": replace(KNOWN["bin"], default=there)}
    return Settings(**resolve(known, "T3_", {}, environ, defaults_file))
