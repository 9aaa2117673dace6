"""Become a user with the working folder as it is; after a line, try to get from it into the store.

Usage: NAME UID, whose folder lies beside. Prints `in`; then, as a list, what each attempt came to:
the number of the error, or what was got.
"""

import os
import sys


def main() -> None:
    name, uid = sys.argv[1], int(sys.argv[2])
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    print("in", flush=True)
    sys.stdin.readline()
    found: list[object] = []
    for path in ("..", f"../{name}", f"../{name}/x"):
        try:
            found.append(os.listdir(path))
        except OSError as error:
            found.append(error.errno)
    try:
        os.rename("mine", f"../{name}/mine")
        found.append("moved")
    except OSError as error:
        found.append(error.errno)
    print(found)


if __name__ == "__main__":
    main()
