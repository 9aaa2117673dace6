"""What is shipped for Prometheus and Grafana holds against what is written: names, rules, and what
the rules make of situations."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.manifests import NOON, make_manifest
from support.paths import ROOT

from t3_backup.autoupdate import journal, main, settings
from t3_backup.autoupdate import metrics as bump_metrics
from t3_backup.autoupdate.journal import Journal, Move
from t3_backup.autoupdate.programs.installations import About
from t3_backup.monitor import metrics, status
from t3_backup.monitor.attempts import Attempt
from t3_backup.monitor.collect import AccountView, Overview
from t3_backup.monitor.health import Thresholds
from t3_backup.store.catalog import Catalog, Entry, Proof
from t3_backup.system.signals import StopRequest
from t3_backup.t3.login_report import Login, write_login
from t3_backup.text import format_time

yaml = pytest.importorskip("yaml")
parser = pytest.importorskip("prometheus_client.parser")

ALERTS = ROOT / "share" / "alerts.yml"
DASHBOARD = ROOT / "share" / "grafana-dashboard.json"
HOUR = 3600
NIGHT = 48 * HOUR  # when the tests of the rules look: in them the clock of Prometheus begins with 0

RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]
}
BOARD = json.loads(DASHBOARD.read_text())
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool, of the package prometheus"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The names of all metrics there are, with what is said of each."""
    families: dict[str, str] = {}
    for content in (of_the_backup(), of_the_bump(tmp_path_factory.mktemp("root"))):
        found = parser.text_string_to_metric_families(content.decode())
        families |= {family.name: family.documentation for family in found if family.samples}
    return families


def of_the_backup() -> bytes:
    """What it writes of one account."""
    snapshot, proof = make_manifest(), Proof(NOON, "verified")
    tried = Attempt(format_time(NOON), "run", "backed_up", "verified", "", 1.0, 1, 1)
    overview = Overview(
        Path("/store"),
        1,
        (
            AccountView(
                "alice",
                in_map=True,
                snapshots=(snapshot,),
                attempts=(tried,),
                catalog=Catalog({snapshot.name: Entry(snapshot.name, "sealed", proof)}),
            ),
        ),
    )
    return metrics.render(status.status_of(overview, NOON, Thresholds()))


def of_the_bump(root: Path) -> bytes:
    """What it writes of one account that was moved, and has a bump before it."""
    values = settings.load({"T3_AUTOUPDATE_ROOT": str(root)}, Path("/nonexistent"))
    (root / "map").write_text("x=alice\n")
    environ = {"T3_BACKUP_MAP": str(root / "map")}
    context = main._make_context(values, environ, StopRequest(), as_json=True)
    folder = context.installations.begin_version()
    (folder / "bin").mkdir()
    (folder / "bin" / "t3").touch(mode=0o755)
    context.installations.finish_version(folder, About("0.0.25", "here"))
    context.installations.link_version("alice", "0.0.25")
    done = Move("alice", "0.0.24", "0.0.25", "prebump-0.0.25", phase=journal.DONE)
    context.journals.end(
        Journal(
            "bump", "0.0.25", format_time(NOON), (done,), ended=format_time(NOON), result="done"
        )
    )
    login = Login(False, "0.0.25", format_time(NOON), format_time(NOON), "no login")
    write_login(root, "alice", login)
    return bump_metrics.render_metrics(context)


def names(text: str) -> set[str]:
    return set(re.findall(r"\bt3_(?:backup|autoupdate)_\w+", text))


def test_every_metric_of_alerts_and_dashboard_is_written(written: dict[str, str]) -> None:
    queries = [variable.get("query", "") for variable in BOARD["templating"]["list"]]
    for expression in [rule["expr"] for rule in RULES.values()] + EXPRESSIONS + queries:
        assert names(expression) <= set(written), expression
    assert names(" ".join(EXPRESSIONS)) >= {
        "t3_backup_last_success_timestamp_seconds",
        "t3_backup_store_free_bytes",
    }


def test_every_metric_that_is_written_is_documented_with_its_meaning(
    written: dict[str, str],
) -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    assert any(name.startswith("t3_autoupdate_") for name in written)
    for name, meaning in written.items():
        assert re.search(
            rf"^\| `{name}(\{{[a-z, ]+\}})?` \| {re.escape(meaning.removesuffix('.'))} \|$",
            text,
            re.MULTILINE,
        ), name


def test_every_alert_is_documented_and_says_what_to_do() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for name, rule in RULES.items():
        assert f"`{name}`" in text
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert re.search(
            r"t3-backup-state|t3-autoupdate|T3_BACKUP_", rule["annotations"]["description"]
        )


def test_every_panel_has_a_title_a_unit_and_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in ("s", "bytes", "short"), panel["title"]
        assert panel["targets"]
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert (
        len({panel["id"] for panel in BOARD["panels"]})
        == len({panel["title"] for panel in BOARD["panels"]})
        == len(BOARD["panels"])
    )


def promtool(*words: str | Path) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_takes_the_rules_and_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    promtool("check", "rules", ALERTS)
    rules = [
        {"record": f"panel:{n}", "expr": expression} for n, expression in enumerate(EXPRESSIONS)
    ]
    # JSON is YAML, too
    (tmp_path / "rules.yml").write_text(
        json.dumps({"groups": [{"name": "panels", "rules": rules}]})
    )
    promtool("check", "rules", tmp_path / "rules.yml")


HEALTHY: dict[str, float] = {
    "build_info{version='1'}": 1,
    "account_in_map{account='alice'}": 1,
    "last_success_timestamp_seconds{account='alice'}": NIGHT - 8 * HOUR,
    "last_attempt_timestamp_seconds{account='alice'}": NIGHT - 8 * HOUR,
    "last_attempt_ok{account='alice'}": 1,
    "snapshots_held{account='alice'}": 0,
    "snapshots_lost{account='alice'}": 0,
    "uncovered_databases{account='alice'}": 0,
    "missing_databases{account='alice'}": 0,
    "failed_proofs{account='alice'}": 0,
    "oldest_proof_timestamp_seconds{account='alice'}": NIGHT - 15 * 24 * HOUR,
    "last_snapshot_bytes{account='alice'}": 1000,
    "store_free_bytes": 2000,
}
GONE = {"account_in_map{account='alice'}": 0.0}

SITUATIONS: dict[str, tuple[Mapping[str, float | None], set[str]]] = {
    "healthy": ({}, set()),
    "26 hours old": ({"last_success_timestamp_seconds{account='alice'}": NIGHT - 26 * HOUR}, set()),
    "older": (
        {"last_success_timestamp_seconds{account='alice'}": NIGHT - 26 * HOUR - 60},
        {"T3BackupTooOld"},
    ),
    "never": ({"last_success_timestamp_seconds{account='alice'}": 0}, {"T3BackupNeverMade"}),
    "held": ({"snapshots_held{account='alice'}": 1}, {"T3BackupHeld"}),
    "lost": ({"snapshots_lost{account='alice'}": 1}, {"T3BackupLost"}),
    "a database that is not copied": (
        {"uncovered_databases{account='alice'}": 1},
        {"T3BackupUncovered"},
    ),
    "a database that could not be copied": (
        {"missing_databases{account='alice'}": 1},
        {"T3BackupMissing"},
    ),
    "a snapshot that is not what was sealed": (
        {"failed_proofs{account='alice'}": 1},
        {"T3BackupProofFailed"},
    ),
    "a proof that is too old": (
        {"oldest_proof_timestamp_seconds{account='alice'}": NIGHT - 15 * 24 * HOUR - 60},
        {"T3BackupProofTooOld"},
    ),
    "failing": ({"last_attempt_ok{account='alice'}": 0}, {"T3BackupFailing"}),
    "no runs": (
        {"last_attempt_timestamp_seconds{account='alice'}": NIGHT - 27 * HOUR},
        {"T3BackupNoRuns"},
    ),
    "one of two is tried": (
        {
            "last_attempt_timestamp_seconds{account='alice'}": NIGHT - 27 * HOUR,
            "last_attempt_timestamp_seconds{account='bob'}": NIGHT - HOUR,
        },
        set(),
    ),
    "little space": ({"store_free_bytes": 1999}, {"T3BackupLittleSpace"}),
    "little space for two": ({"last_snapshot_bytes{account='bob'}": 1}, {"T3BackupLittleSpace"}),
    "out of the map": (
        GONE
        | {
            "last_success_timestamp_seconds{account='alice'}": 1,
            "snapshots_held{account='alice'}": 1,
            "snapshots_lost{account='alice'}": 1,
            "uncovered_databases{account='alice'}": 1,
            "missing_databases{account='alice'}": 1,
            "failed_proofs{account='alice'}": 1,
            "oldest_proof_timestamp_seconds{account='alice'}": 1,
        },
        set(),
    ),
    "nothing at all": (dict.fromkeys(HEALTHY, None), {"T3BackupMetricsAbsent"}),
}
# Of the bump; the backup is healthy. How long it has been so counts, in hours before now.
DAY = 24
BUMP_HEALTHY: dict[str, float] = {
    "frozen": 0,
    "account_held{account='alice'}": 0,
    "deferred": 0,
    "interrupted": 0,
    "last_ok": 1,
    "account_login_ok{account='alice'}": 1,
}
BUMP_SITUATIONS: dict[str, tuple[dict[str, float], float, set[str]]] = {
    "healthy": ({}, 0, set()),
    "held for a moment": ({"account_held{account='alice'}": 1, "interrupted": 1}, 0.1, set()),
    "held": ({"account_held{account='alice'}": 1}, 0.3, {"T3AutoupdateHeld"}),
    "interrupted": ({"interrupted": 1}, 0.6, {"T3AutoupdateInterrupted"}),
    "taken back": ({"frozen": 1, "last_ok": 0}, 0, {"T3AutoupdateFailed"}),
    "taken back, and thawed": ({"last_ok": 0}, 0, set()),
    "nobody can log in": (
        {"account_login_ok{account='alice'}": 0},
        0,
        {"T3AutoupdateNobodyCanLogIn"},
    ),
    "frozen by hand": ({"frozen": 1}, 6 * DAY, set()),
    "frozen by hand and forgotten": ({"frozen": 1}, 8 * DAY, {"T3AutoupdateFrozen"}),
    "busy": ({"deferred": 2}, 2 * DAY, set()),
    "busy for days": ({"deferred": 2}, 4 * DAY, {"T3AutoupdateDeferred"}),
}


def one_series(prefix: str, name: str, values: str) -> dict[str, str]:
    """A series as promtool wants it, of the instance `vm`."""
    label = "instance='vm'" if name.endswith("}") else "{instance='vm'}"
    full = f"{prefix}_{name[:-1]},{label}}}" if name.endswith("}") else f"{prefix}_{name}{label}"
    return {"series": full.replace("'", '"'), "values": values}


@needs_promtool
@pytest.mark.parametrize(("changes", "firing"), SITUATIONS.values(), ids=SITUATIONS)
def test_the_alerts_of_a_situation_fire_and_no_others(
    changes: dict[str, float | None], firing: set[str], tmp_path: Path
) -> None:
    held = NIGHT // 60 + 1
    all_of_it = {name: value for name, value in (HEALTHY | changes).items() if value is not None}
    must_fire(
        firing,
        [one_series("t3_backup", name, f"{value:.0f}x{held}") for name, value in all_of_it.items()],
        NIGHT,
        tmp_path,
    )


@needs_promtool
@pytest.mark.parametrize(
    ("changes", "hours", "firing"), BUMP_SITUATIONS.values(), ids=BUMP_SITUATIONS
)
def test_the_alerts_of_a_bump_fire_once_it_lasts_and_no_others(
    changes: dict[str, float], hours: float, firing: set[str], tmp_path: Path
) -> None:
    # a step: a whole week by the minute would take promtool half a minute
    minutes = 60 if hours >= DAY else 1
    steps = round(hours * 60 / minutes)
    series = [
        one_series("t3_autoupdate", name, f"{value:.0f}x2 {changes.get(name, value):.0f}x{steps}")
        for name, value in BUMP_HEALTHY.items()
    ]
    series.append(one_series("t3_backup", "build_info{version='1'}", f"1x{steps + 3}"))
    must_fire(firing, series, (steps + 3) * minutes * 60, tmp_path, minutes)


def must_fire(
    firing: set[str], series: list[dict[str, str]], seconds: int, tmp_path: Path, minutes: int = 1
) -> None:
    """What fires so many seconds after the series begin, which have a value every so many minutes,
    must be these."""
    # Which alerts fire is what ALERTS itself says: the series that Prometheus makes of each.
    wanted = [{"labels": f"ALERTS{{{labels(name)}}}", "value": 1} for name in sorted(firing)]
    test: dict[str, Any] = {
        "interval": f"{minutes}m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": 'ALERTS{alertstate="firing"}',
                "eval_time": f"{seconds}s",
                "exp_samples": wanted,
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(
        json.dumps(
            {"rule_files": [str(ALERTS)], "evaluation_interval": f"{minutes}m", "tests": [test]}
        )
    )
    promtool("test", "rules", file)


def labels(name: str) -> str:
    """Those of an alert that fires in a situation above."""
    of_all = {
        "alertname": name,
        "alertstate": "firing",
        "severity": RULES[name]["labels"]["severity"],
    }
    if name != "T3BackupMetricsAbsent":
        of_all["instance"] = "vm"
    if name in (
        "T3BackupTooOld",
        "T3BackupNeverMade",
        "T3BackupHeld",
        "T3BackupLost",
        "T3BackupUncovered",
        "T3BackupMissing",
        "T3BackupProofFailed",
        "T3BackupProofTooOld",
        "T3BackupFailing",
        "T3AutoupdateHeld",
        "T3AutoupdateNobodyCanLogIn",
    ):
        of_all["account"] = "alice"
    return ",".join(f'{key}="{value}"' for key, value in of_all.items())
