"""Have the gate try versions, one for each line `PREFIX SUBJECT` of standard input.

Usage: WATCH_SECONDS STORE LIMIT..., the options of a trial that say how long its steps may take.
Prints its pid, then for each a line of JSON: what was found, or null where there is no snapshot.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

from t3_backup.autoupdate.gate import gate
from t3_backup.autoupdate.gate.verdict import EMPTY
from t3_backup.autoupdate.snapshots import Snapshots


def main() -> None:
    watch, store, *limits = sys.argv[1:]
    gate.LIMITS = tuple(limits)
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        prefix, subject = line.split()
        write = None if subject == EMPTY else Snapshots(Path(store)).write_newest
        found = gate.run_trial(Path(prefix), subject, write, int(watch), 60)
        print(json.dumps(found and dataclasses.asdict(found)), flush=True)


if __name__ == "__main__":
    main()
