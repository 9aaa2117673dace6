"""Call a command of `t3-backup-state` where a Python package is not installed.

Usage: PACKAGE WORD...
"""

import sys


def main() -> None:
    package, *words = sys.argv[1:]
    # What the import system does for one that isn't there.
    sys.modules[package] = None  # type: ignore[assignment]
    from t3_backup.cli.main import main as command  # noqa: PLC0415 - not before it is gone

    sys.exit(command(words))


if __name__ == "__main__":
    main()
