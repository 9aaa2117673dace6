"""Become a user, confined as a worker is, and print which databases their T3 servers hold open.

Usage: UID GID HOME BASE_DIR SECONDS [EXPECTED...]. What is imported, is imported as root, as a
worker does it. Prints two lines of JSON: what was found, and inode and device of the base
directory.
"""

import json
import os
import sys
from dataclasses import asdict

from t3_backup.worker.child import open_databases, own_processes, sandbox


def main() -> None:
    uid, gid = map(int, sys.argv[1:3])
    home, base_dir, seconds = sys.argv[3:6]
    os.chdir("/")
    folder = os.open(base_dir, os.O_PATH | os.O_DIRECTORY)
    sandbox.become_user(uid, gid, ())
    sandbox.confine_process(os.getppid())
    found = open_databases.look_at_open_databases(
        uid, home, base_dir, float(seconds), map(int, sys.argv[6:])
    )
    print(json.dumps(asdict(found)))
    print(json.dumps(own_processes.identify(folder)))


if __name__ == "__main__":
    main()
