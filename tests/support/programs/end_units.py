"""End the transient units that match a pattern.

Usage: PATTERN.
"""

import sys

from t3_backup.system import transient_unit


def main() -> None:
    transient_unit.end(sys.argv[1])


if __name__ == "__main__":
    main()
