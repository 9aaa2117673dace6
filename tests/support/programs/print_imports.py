"""Call a command's `main`, and print the modules that are imported then to standard error.

Usage: MODULE WORD... The command must not end with a failure.
"""

import sys
from importlib import import_module


def main() -> None:
    try:
        import_module(sys.argv[1]).main(sys.argv[2:])
    except SystemExit as end:
        if end.code:
            raise
    print(*sorted(sys.modules), file=sys.stderr)


if __name__ == "__main__":
    main()
