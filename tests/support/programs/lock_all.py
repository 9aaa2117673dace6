"""Lock whatever can be opened below a folder, until standard input ends.

Usage: FOLDER. Prints how many files and folders it has locked.
"""

import fcntl
import os
import sys


def _locked(path: str) -> bool:
    try:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def main() -> None:
    held = 0
    for folder, folders, files in os.walk(sys.argv[1]):
        paths = (folder, *(os.path.join(folder, name) for name in (*folders, *files)))
        held += sum(map(_locked, paths))
    print(held, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
