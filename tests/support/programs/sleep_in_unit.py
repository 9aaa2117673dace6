"""Run a long sleep as a transient unit, and wait for it; prints the pid of this process first."""

import os

from t3_backup.system import transient_unit


def main() -> None:
    print(os.getpid(), flush=True)
    transient_unit.run(["/bin/sleep", "1000"], name="t3-test", properties=[], seconds=60)


if __name__ == "__main__":
    main()
