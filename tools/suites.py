#!/usr/bin/python3 -I
"""Print how many tests of each suite ran, and their seconds, from pytest's XML.

Usage: tools/suites.py XML...
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from xml.etree import ElementTree as ET

tests: Counter[str] = Counter()
seconds: defaultdict[str, float] = defaultdict(float)
wrong: Counter[str] = Counter()
for path in sys.argv[1:]:
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 # pytest's own
        suite = "/".join(case.get("classname", "").split(".")[:2])
        tests[suite] += 1
        seconds[suite] += float(case.get("time", "0"))
        wrong[suite] += any(case.find(kind) is not None for kind in ("failure", "error"))
print(f"{'suite':18}{'tests':>7}{'failed':>8}{'seconds, one after another':>28}")
for suite in sorted(tests):
    print(f"{suite:18}{tests[suite]:7}{wrong[suite]:8}{seconds[suite]:28.0f}")
print(f"{'all':18}{tests.total():7}{wrong.total():8}{sum(seconds.values()):28.0f}")
