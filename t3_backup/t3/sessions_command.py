"""End the logins of our checks for t3-autoupdate: as the owner of the state, in a process apart."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from t3_backup.errors import EXIT_OK, Failure
from t3_backup.t3.limits import STEP_SECONDS
from t3_backup.t3.sessions import end_ours


def main(argv: Sequence[str] | None = None) -> int:
    """End our logins, and print what is left as JSON: exit 1 where something is."""
    parser = argparse.ArgumentParser(prog="t3_backup.t3.sessions_command")
    parser.add_argument("--t3", type=Path, required=True)
    parser.add_argument("--base-dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=STEP_SECONDS)
    args = parser.parse_args(argv)
    left = end_ours(args.t3, args.base_dir, args.seconds)
    print(json.dumps({"left": left}))
    return Failure.exit_code if left else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
