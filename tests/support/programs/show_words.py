"""Print the arguments as JSON, and `e` to standard error.

The exit code is 7 where standard input is empty, else 8.
"""

import json
import sys


def main() -> None:
    print(json.dumps(sys.argv[1:]))
    sys.stderr.write("e")
    sys.exit(7 if sys.stdin.read() == "" else 8)


if __name__ == "__main__":
    main()
