"""Build and metadata of t3-backup. The version is read from the package's text: importing it would need what it builds."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "t3_backup" / "__init__.py").read_text(), re.MULTILINE)
if VERSION is None:
    raise SystemExit("t3_backup/__init__.py holds no __version__")

setup(
    name="t3-backup",
    version=VERSION.group(1),
    description="Verified backups of every T3 Code user's state.sqlite",
    long_description=(
        "Takes a consistent, proven copy of each T3 Code user's state.sqlite on a shared machine, as its owner, "
        "without stopping or delaying the live server, and keeps it where the user's own processes can't alter it."
    ),
    long_description_content_type="text/plain",
    packages=["t3_backup"],
    cffi_modules=["csrc/build.py:ffibuilder"],
    install_requires=["apsw", "cffi>=1.15"],
    python_requires=">=3.11",
    entry_points={"console_scripts": ["t3-backup-state = t3_backup.cli:main"]},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    zip_safe=False,
)
