"""Print lines as the command `run` does to its standard output.

Usage: LINES, a list of [PRIORITY, TEXT] as JSON; a PRIORITY of null is that of a warning.
"""

import json
import sys

from t3_backup.output.console import make_console


def main() -> None:
    with make_console(sys.stdout, "run") as out:
        for priority, text in json.loads(sys.argv[1]):
            if priority is None:
                out.warn(text)
            else:
                out.line(priority, text)


if __name__ == "__main__":
    main()
