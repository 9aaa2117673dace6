"""Overwrite 20 000 bytes of a file's middle with random ones.

Usage: FILE.
"""

import os
import sys


def main() -> None:
    with open(sys.argv[1], "r+b") as file:
        file.seek(100_000)
        file.write(os.urandom(20_000))


if __name__ == "__main__":
    main()
