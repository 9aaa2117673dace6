"""Print who runs this and with what rights, as JSON."""

import json
import os
import sys


def main() -> None:
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    found = {
        "env": dict(os.environ),
        "ids": [os.getuid(), os.getgid()],
        "groups": os.getgroups(),
        "cwd": os.getcwd(),
        "stdin": sys.stdin.read(),
        "nnp": status["NoNewPrivs"].strip(),
        "caps": int(status["CapPrm"], 16) | int(status["CapBnd"], 16),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
