"""Be a worker that notes what is imported when it becomes the user, and at its end.

Usage: NOTE PACKAGE OPERATION. NOTE is the file for the two lists, as JSON; the rest is a worker's.
"""

import json
import os
import sys


def main() -> None:
    note = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    package = sys.argv.pop(1)
    if package not in sys.path:
        sys.path.insert(0, package)
    from t3_backup.worker.child import sandbox  # noqa: PLC0415 - it is found by now
    from t3_backup.worker.child.main import main as work  # noqa: PLC0415

    become, seen = sandbox.become_user, []

    def noted(uid: int, gid: int, groups: tuple[int, ...]) -> None:
        seen.append(sorted(sys.modules))
        become(uid, gid, groups)

    sandbox.become_user = noted
    code = work()
    os.write(note, json.dumps([*seen, sorted(sys.modules)]).encode())
    os._exit(code)


if __name__ == "__main__":
    main()
