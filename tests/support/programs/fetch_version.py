"""Fetch a version by npm.

Usage: VERSION SPEC
"""

import sys
from pathlib import Path

from t3_backup.autoupdate.programs import npm
from t3_backup.autoupdate.programs.installations import Installations

npm.fetch_version(Installations(Path("/var/lib/t3-autoupdate")), sys.argv[1], sys.argv[2], print)
