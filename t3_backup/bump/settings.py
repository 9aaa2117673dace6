"""The values of t3-autoupdate: defaults, then /etc/default/t3-autoupdate, then the environment, then flags.

The user map, the store and the folder of the metrics are those of t3-backup.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t3_backup.bump import versions
from t3_backup.settings import Known, absolute, resolve, whole

_BINS = ("/usr/local/bin/t3", "/usr/bin/t3")  # npm of Debian installs below /usr/local, that of others below /usr
DEFAULTS_FILE = Path("/etc/default/t3-autoupdate")


@dataclass(frozen=True)
class Settings:
    """The values of one command. Durations in seconds."""

    pin: str  # the version that all accounts are to be on
    npm_spec: str  # what npm is asked for; {version} stands for the version
    root: Path  # programs, links, journal
    freeze: Path  # while this file is there, nothing is changed by itself
    serve: Path  # the folder with USER.env, in which is the port of a server
    bin: Path  # what people call as t3
    watch: int  # how long the gate looks at a server that seems well
    patience: int  # until a server that was started must listen, and answer each step of a login
    settle: int  # how long a server must stay up once it was logged in to


def _version(text: str) -> str:
    if not versions.is_version(text):
        raise ValueError("a version, such as 0.0.25")
    return text


def _spec(text: str) -> str:
    if "{version}" not in text or text.startswith("-"):
        raise ValueError("what npm can install, with {version} in it, such as t3@{version}")
    return text


_KNOWN: Known = {
    "pin": ("T3_PIN", "0.0.24", _version),
    "npm_spec": ("T3_NPM_SPEC", "t3@{version}", _spec),
    "bin": ("T3_BIN", _BINS[0], absolute),  # that which is there, of both
    "serve": ("T3_SERVE_DIR", "/etc/t3-serve", absolute),
    "root": ("T3_AUTOUPDATE_ROOT", "/var/lib/t3-autoupdate", absolute),
    "freeze": ("T3_AUTOUPDATE_FREEZE", "/etc/t3-autoupdate.freeze", absolute),
    "watch": ("T3_AUTOUPDATE_WATCH", "10", whole(1, 3600)),
    "patience": ("T3_AUTOUPDATE_PATIENCE", "30", whole(1, 3600)),
    "settle": ("T3_AUTOUPDATE_SETTLE", "3", whole(0, 3600)),
}


def load(environ: Mapping[str, str], defaults_file: Path = DEFAULTS_FILE) -> Settings:
    """The settings of a command. Raises UsageError for the first value that makes no sense."""
    there = next(filter(os.path.lexists, _BINS), _BINS[0])
    return Settings(**resolve({**_KNOWN, "bin": ("T3_BIN", there, absolute)}, "T3_", {}, environ, defaults_file))
