"""Try all that its user must not do with a snapshot, their folder and the store.

Usage: STORE FOLDER SNAPSHOT AWAY. Prints the name of each thing that is not refused.
"""

import contextlib
import os
import sys
from collections.abc import Callable


def main() -> None:
    store, folder, data, away = sys.argv[1:]
    steps: dict[str, Callable[[], object]] = {
        "list the store": lambda: os.listdir(store),
        "list the folder": lambda: os.listdir(folder),
        "read": lambda: os.open(data, os.O_RDONLY),
        "change": lambda: os.open(data, os.O_RDWR),
        "truncate": lambda: os.truncate(data, 0),
        "touch": lambda: os.utime(data),
        "chmod": lambda: os.chmod(data, 0o666),
        "delete": lambda: os.unlink(data),
        "rename": lambda: os.rename(data, away),
        "link": lambda: os.link(data, away),
        "add": lambda: os.open(f"{folder}/mine", os.O_WRONLY | os.O_CREAT),
        "remove the folder": lambda: os.rename(folder, f"{folder}.old"),
        "replace the store": lambda: os.rename(store, f"{store}.old"),
        "open the folder to others": lambda: os.chmod(folder, 0o777),
    }
    for name, step in steps.items():
        with contextlib.suppress(PermissionError):
            step()
            print(name)


if __name__ == "__main__":
    main()
