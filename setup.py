"""Build t3-backup.

The version is read from the package's text: importing it would need what is built here. `bdist_deb`
(stdeb's) makes the Debian packages. Their one truth is the folder debian/, which stdeb would write
anew.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "t3_backup" / "__init__.py").read_text(), re.MULTILINE
)
if VERSION is None:
    raise SystemExit("t3_backup/__init__.py holds no __version__")

commands = {}
try:
    from stdeb.command.bdist_deb import bdist_deb
    from stdeb.command.debianize import debianize
    from stdeb.command.sdist_dsc import sdist_dsc
    from stdeb.util import dpkg_buildpackage
except ImportError:  # only who makes a package needs it
    pass
else:

    class SourcePackage(sdist_dsc):
        """stdeb's source package, with the hand-kept debian/ in the place of stdeb's own."""

        def run(self) -> None:
            """Have stdeb make its own, and make ours of it."""
            super().run()
            about = self.get_debinfo()
            dist = Path(self.dist_dir)
            for made in dist.glob(f"{about.source}_*"):
                made.unlink()  # of stdeb's own debian/
            tree = dist / f"{about.source}-{about.upstream_version}"
            for folder in ("debian", ".pc"):
                shutil.rmtree(tree / folder)
            shutil.copytree(HERE / "debian", tree / "debian", symlinks=True)
            dpkg_buildpackage("-S", "-sa", "-us", "-uc", "-d", "-nc", cwd=str(tree))

    class NoDebianize(debianize):
        """Refused: it would overwrite what is kept by hand."""

        def run(self) -> None:
            """Say what to do instead."""
            how = "make deb (or: python3 setup.py bdist_deb)"
            raise SystemExit(f"debian/ is kept by hand; to make the package: {how}")

    commands = {"bdist_deb": bdist_deb, "sdist_dsc": SourcePackage, "debianize": NoDebianize}

setup(
    name="t3-backup",
    version=VERSION.group(1),
    description="Verified backups of every T3 Code user's state.sqlite",
    long_description=(
        "Takes a consistent, proven copy of each T3 Code user's state.sqlite on a shared machine, "
        "as its owner, without stopping or delaying the live server, and keeps it where the user's "
        "own processes can't alter it."
    ),
    long_description_content_type="text/plain",
    maintainer="The t3-backup maintainers",
    maintainer_email="t3-backup@packages.debian.org",
    license="MIT",
    packages=find_packages(include=["t3_backup", "t3_backup.*"]),
    package_data={"t3_backup.monitor": ["templates/*.html"]},
    cffi_modules=["csrc/build.py:ffibuilder"],
    install_requires=["apsw", "cffi>=1.15"],
    python_requires=">=3.11",
    entry_points={
        "console_scripts": [
            "t3-backup-state = t3_backup.cli.main:main",
            "t3-autoupdate = t3_backup.autoupdate.main:main",
            "t3-pair = t3_backup.t3.pair_command:main",
        ]
    },
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    cmdclass=commands,
    zip_safe=False,
)
