"""Wait until an account of a bump is in a phase, by the bump's journal.

Usage: PHASE. A phase that it has gone through by then is no reason to go on waiting; that there is
no journal any more is a failure.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    while True:
        try:
            text = Path("/var/lib/t3-autoupdate/journal.json").read_text()
        except FileNotFoundError:
            sys.exit("it has ended")
        if any(move["phase"] == sys.argv[1] for move in json.loads(text)["moves"]):
            break


if __name__ == "__main__":
    main()
