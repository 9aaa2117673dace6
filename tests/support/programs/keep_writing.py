"""Write messages as a person, again and again, until standard input ends.

Usage: PORT COOKIE PREFIX. Prints the text of each message that the server has taken, as soon as it
has: it must not be lost any more.
"""

import itertools
import json
import select
import sys
import urllib.request

_PORT, _COOKIE, _PREFIX = sys.argv[1:]
_PAUSE_S = 0.2


def _write(text: str) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{_PORT}/fake/event",
        json.dumps({"text": text}).encode(),
        {"Content-Type": "application/json", "Cookie": _COOKIE},
    )
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    for number in itertools.count():
        text = f"{_PREFIX}-{number}"
        if _write(text):
            print(text, flush=True)
        if select.select([sys.stdin], [], [], _PAUSE_S)[0]:
            break


if __name__ == "__main__":
    main()
