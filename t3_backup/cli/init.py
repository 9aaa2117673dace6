"""The command `init`: make the store, or mark it, and remember which one it is."""

from __future__ import annotations

import argparse
import sys

from t3_backup.errors import EXIT_OK, StoreError
from t3_backup.output import console
from t3_backup.output.console import Console
from t3_backup.settings import Settings
from t3_backup.store.identity import check_identity, mark_store
from t3_backup.store.known_stores import KnownStores
from t3_backup.store.lock import WAIT_S
from t3_backup.store.store import Store
from t3_backup.text import INFO


def init_command(args: argparse.Namespace, values: Settings) -> int:
    """Run `init`: after it, a run refuses any other store in this place."""
    out = Console(sys.stderr if args.json else sys.stdout)
    known = KnownStores.own()
    check = check_identity(values.dest, known)
    if check.problem and not args.adopt:
        raise StoreError(check.problem)
    if check.is_empty and args.existing:
        out.line(INFO, f"no store at {values.dest}, and none is begun")
        return EXIT_OK
    with Store.open(values.dest, create=True) as store:
        store.lock(wait=WAIT_S)
        identity = mark_store(store)
        known.remember(store.path, identity, is_configured=args.dest is None)
    out.line(INFO, f"{values.dest} is remembered in {known.path} as the store {identity}")
    if args.json:
        console.print_document(
            {"store": str(values.dest), "id": identity, "remembered_in": str(known.path)}
        )
    return EXIT_OK
