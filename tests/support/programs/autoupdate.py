"""Be `t3-autoupdate`, but with the checkout's `t3-backup-state`, since none is installed.

Usage: as-owner|as-root WORD... `as-root` looks itself at what a server is at, where there is no
systemd to look as the owner.
"""

import sys

from t3_backup.autoupdate import main as command
from t3_backup.autoupdate import snapshots
from t3_backup.t3 import activity
from t3_backup.t3.servers import Activity, Server


def _read_activity(server: Server) -> Activity | None:
    value = activity.read_activity(server.account.home / ".t3/userdata/state.sqlite")
    return None if value is None else Activity(**value)


def main() -> None:
    if sys.argv.pop(1) == "as-root":
        Server.read_activity = _read_activity  # type: ignore[method-assign, assignment]
    snapshots.COMMAND = (sys.executable, "-m", "t3_backup.cli.main")  # type: ignore[assignment]
    sys.exit(command.main())


if __name__ == "__main__":
    main()
