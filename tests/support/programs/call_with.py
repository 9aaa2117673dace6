"""Call a command with other values of constants that say how long something may take.

Usage: MODULE.NAME=VALUE... MODULE WORD... Each VALUE is JSON; MODULE has the command's `main`.
"""

import json
import sys
from importlib import import_module


def main() -> None:
    words = sys.argv[1:]
    while "=" in words[0]:
        path, _, value = words.pop(0).partition("=")
        module, _, name = path.rpartition(".")
        old, new = getattr(import_module(module), name), json.loads(value)
        setattr(import_module(module), name, tuple(new) if isinstance(old, tuple) else new)
    sys.exit(import_module(words[0]).main(words[1:]))


if __name__ == "__main__":
    main()
