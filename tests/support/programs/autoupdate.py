"""Be `t3-autoupdate`, but with the checkout's `t3-backup-state`, since none is installed.

Usage: WORD...
"""

import sys

from t3_backup.autoupdate import main as command
from t3_backup.autoupdate import snapshots


def main() -> None:
    snapshots.COMMAND = (sys.executable, "-m", "t3_backup.cli.main")  # type: ignore[assignment]
    sys.exit(command.main())


if __name__ == "__main__":
    main()
