"""Call a function of `transient_unit`, and print what it gave or its failure, and the seconds.

Standard input has [FUNCTION, ARGUMENTS, KEYWORDS] as JSON; what is printed is JSON, too.
"""

import dataclasses
import json
import sys
import time

from t3_backup.errors import Failure
from t3_backup.system import transient_unit


def main() -> None:
    function, words, how = json.load(sys.stdin)
    began = time.monotonic()
    try:
        found = dataclasses.asdict(getattr(transient_unit, function)(*words, **how))
    except Failure as failure:
        found = {"failure": str(failure)}
    print(json.dumps(found | {"seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
