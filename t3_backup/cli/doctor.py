"""The command `doctor`: check the machine."""

from __future__ import annotations

import argparse
import sys

from t3_backup.doctor import checks, gather
from t3_backup.errors import EXIT_OK, Failure
from t3_backup.output import console
from t3_backup.output.console import Console
from t3_backup.settings import Settings
from t3_backup.system import signals


def doctor_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `doctor`: check the machine and say what to mend."""
    out = Console(sys.stderr if args.json else sys.stdout)
    findings = checks.check_machine(gather.gather_facts(values, signals.stop_on_signals()), values)
    for finding in findings:
        out.line(finding.priority, finding.line())
    if args.json:
        console.print_document({"checks": [finding.as_json() for finding in findings]})
    failed = any(finding.status == "fail" for finding in findings)
    return Failure.exit_code if failed else EXIT_OK
