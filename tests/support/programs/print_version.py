"""Print the version that a T3 server says it is of.

Usage: PORT.
"""

import json
import sys
import urllib.request


def main() -> None:
    url = f"http://127.0.0.1:{sys.argv[1]}/.well-known/t3/environment"
    with urllib.request.urlopen(url, timeout=20) as answer:
        print(json.load(answer)["serverVersion"])


if __name__ == "__main__":
    main()
