"""Run `t3-pair`: log in to one T3 server, for whoever asks whether anybody can."""

from __future__ import annotations

import argparse
import json
import math
import os
import pwd
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import t3_backup
from t3_backup.errors import EXIT_OK, Failure, UsageError
from t3_backup.system import standard_streams
from t3_backup.t3.endpoints import HOST
from t3_backup.t3.limits import STEP_SECONDS


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ARG002 - argparse's
        if message and (code := _write(self.prog, message, EXIT_OK)):
            raise SystemExit(code)

    def error(self, message: str) -> NoReturn:
        standard_streams.write_error(f"{self.prog}: {message}; see {self.prog} --help\n")
        raise SystemExit(UsageError.exit_code)


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:  # neither is nan
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is no time limit in seconds")


def _refusal(base_dir: Path, words: Sequence[str]) -> str:
    """Say why it can't be called so; empty where it may go on.

    The mint would begin a new state where there is none. Files that root makes beside a database
    are closed to its owner.
    """
    try:
        owner = (base_dir / ".").stat().st_uid
    except OSError as error:
        return f"--base-dir {base_dir}: {error.strerror}"
    if os.geteuid() != 0 or owner == 0:
        return ""
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return (
        f"{base_dir} belongs to {name}: files that root writes there would lock them out: "
        f"runuser -u {name} -- {shlex.join(words)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `t3-pair`: exit 0 where people can log in, 1 where not, 2 for wrong use."""
    standard_streams.open_closed()
    parser = _Parser(
        prog="t3-pair",
        description="Log in to a T3 server as a browser does, as the owner of its state.",
    )

    def required(flag: str, kind: Callable[[str], Any], metavar: str, meaning: str) -> None:
        parser.add_argument(flag, type=kind, required=True, metavar=metavar, help=meaning)

    required("--t3", Path, "BIN", "the program that mints the credential")
    required("--base-dir", Path, "DIR", "where the server has its state (~/.t3)")
    required("--port", _port, "N", f"where it listens on {HOST}")
    each = f"for each step ({STEP_SECONDS:g})"
    parser.add_argument("--seconds", type=_seconds, default=STEP_SECONDS, metavar="S", help=each)
    keep = "leave the login in the database, where it stands for 30 days"
    parser.add_argument("--keep", action="store_true", help=keep)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line")
    version = f"{parser.prog} {t3_backup.__version__}"
    parser.add_argument("--version", action="version", version=version)
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    if why := _refusal(args.base_dir, [parser.prog, *words]):
        standard_streams.write_error(f"{parser.prog}: {why}\n")
        return UsageError.exit_code
    # They bring asyncio and aiohttp, which take longer to start than all the rest.
    from t3_backup.t3 import sessions  # noqa: PLC0415
    from t3_backup.t3.pairing import PairingFailed, pair  # noqa: PLC0415

    try:
        endpoint = pair(args.t3, args.base_dir, args.port, args.seconds)
        document: dict[str, Any] = {"paired": True, "endpoint": endpoint}
        text, code, made = f"paired by {endpoint}", EXIT_OK, True
    except PairingFailed as failed:
        document = {"paired": False, "step": failed.step, "reason": failed.reason}
        document["slow"] = failed.slow
        text, code, made = f"not paired: {failed}", failed.exit_code, failed.step == "session"
    if made and not args.keep:
        document["left"] = left = sessions.end_ours(args.t3, args.base_dir, args.seconds)
        if left and not args.json:
            standard_streams.write_error(f"{parser.prog}: left behind: {left}\n")
    said = json.dumps(document) if args.json else text
    return _write(parser.prog, f"{said}\n", code)


def _write(program: str, text: str, code: int) -> int:
    """Write on standard output, and return the exit code, which is not 0 where that can't be."""
    try:
        standard_streams.write_out(text)
    except OSError as error:
        standard_streams.write_error(f"{program}: {error.strerror}\n")
    return code if standard_streams.find_lost() is None else code or Failure.exit_code


if __name__ == "__main__":
    sys.exit(main())
