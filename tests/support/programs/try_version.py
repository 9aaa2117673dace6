"""Have the gate try a version on the data of some users; print what each trial found, as JSON.

Usage: STORE PREFIX USER...
"""

import dataclasses
import json
import sys
from pathlib import Path

from t3_backup.autoupdate.gate import gate
from t3_backup.autoupdate.snapshots import Snapshots


def _say_nothing(_: str) -> None:
    pass


def main() -> None:
    store, prefix, *users = sys.argv[1:]
    write = Snapshots(Path(store)).write_newest
    found = gate.try_version(
        Path(prefix), users, write, watch_seconds=2, patience=60, say=_say_nothing
    )
    print(json.dumps([dataclasses.asdict(trial) for trial in found]))


if __name__ == "__main__":
    main()
