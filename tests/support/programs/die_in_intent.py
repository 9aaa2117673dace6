"""Save the next state of alice's restore, and die by SIGKILL when it is to be synced to the disk.

Usage: STORE.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from t3_backup.restore import intent_log
from t3_backup.store.store import Store
from t3_backup.system import native


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    native.sync_file = _die
    store = Store.open(Path(sys.argv[1]))
    intent = intent_log.load_intent(store, "alice")
    assert intent is not None
    replace(intent, begun=True).save(store)


if __name__ == "__main__":
    main()
