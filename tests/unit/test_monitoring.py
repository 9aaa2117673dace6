"""What is shipped for Prometheus and Grafana holds against what is written: names, rules, and what the rules make of situations."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from made import NOON, made

from t3_backup import health_report, metrics
from t3_backup.attempts import Attempt
from t3_backup.health import Thresholds
from t3_backup.manifest import format_time
from t3_backup.overview import AccountView, Overview

yaml = pytest.importorskip("yaml")
parser = pytest.importorskip("prometheus_client.parser")

ALERTS = ROOT / "share" / "alerts.yml"
DASHBOARD = ROOT / "share" / "grafana-dashboard.json"
HOUR = 3600
NIGHT = 48 * HOUR  # when the tests of the rules look: in them the clock of Prometheus begins with 0

RULES = {rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
BOARD = json.loads(DASHBOARD.read_text())
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of the package prometheus")


def written() -> dict[str, str]:
    """The names of all metrics there are, with what is said of each."""
    tried = Attempt(format_time(NOON), "run", "backed_up", "verified", "", 1.0, 1, 1)
    overview = Overview(Path("/store"), 1, (AccountView("alice", in_map=True, snapshots=(made(),), attempts=(tried,)),))
    content = metrics.render(health_report.status_of(overview, NOON, Thresholds()))
    families = parser.text_string_to_metric_families(content.decode())
    return {family.name: family.documentation for family in families if family.samples}


def names(text: str) -> set[str]:
    return set(re.findall(r"\bt3_backup_\w+", text))


def test_every_metric_of_alerts_and_dashboard_is_written() -> None:
    queries = [variable.get("query", "") for variable in BOARD["templating"]["list"]]
    for expression in [rule["expr"] for rule in RULES.values()] + EXPRESSIONS + queries:
        assert names(expression) <= set(written()), expression
    assert names(" ".join(EXPRESSIONS)) >= {"t3_backup_last_success_timestamp_seconds", "t3_backup_store_free_bytes"}


def test_every_metric_that_is_written_is_documented_with_its_meaning() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for name, meaning in written().items():
        assert re.search(rf"^\| `{name}(\{{[a-z, ]+\}})?` \| {re.escape(meaning.removesuffix('.'))} \|$", text, re.MULTILINE), name


def test_every_alert_is_documented_and_says_what_to_do() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for name, rule in RULES.items():
        assert f"`{name}`" in text
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "t3-backup-state" in rule["annotations"]["description"] or "T3_BACKUP_" in rule["annotations"]["description"]


def test_every_panel_has_a_title_a_unit_and_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in ("s", "bytes", "short"), panel["title"]
        assert panel["targets"]
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
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
    rules = [{"record": f"panel:{n}", "expr": expression} for n, expression in enumerate(EXPRESSIONS)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML, too
    promtool("check", "rules", tmp_path / "rules.yml")


HEALTHY: dict[str, float] = {
    "build_info{version='1'}": 1,
    "account_in_map{account='alice'}": 1,
    "last_success_timestamp_seconds{account='alice'}": NIGHT - 8 * HOUR,
    "last_attempt_timestamp_seconds{account='alice'}": NIGHT - 8 * HOUR,
    "last_attempt_ok{account='alice'}": 1,
    "snapshots_held{account='alice'}": 0,
    "last_snapshot_bytes{account='alice'}": 1000,
    "store_free_bytes": 2000,
}
GONE = {"account_in_map{account='alice'}": 0.0}

SITUATIONS: dict[str, tuple[Mapping[str, float | None], set[str]]] = {
    "healthy": ({}, set()),
    "26 hours old": ({"last_success_timestamp_seconds{account='alice'}": NIGHT - 26 * HOUR}, set()),
    "older": ({"last_success_timestamp_seconds{account='alice'}": NIGHT - 26 * HOUR - 60}, {"T3BackupTooOld"}),
    "never": ({"last_success_timestamp_seconds{account='alice'}": 0}, {"T3BackupNeverMade"}),
    "held": ({"snapshots_held{account='alice'}": 1}, {"T3BackupHeld"}),
    "failing": ({"last_attempt_ok{account='alice'}": 0}, {"T3BackupFailing"}),
    "no runs": ({"last_attempt_timestamp_seconds{account='alice'}": NIGHT - 27 * HOUR}, {"T3BackupNoRuns"}),
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
        GONE | {"last_success_timestamp_seconds{account='alice'}": 1, "snapshots_held{account='alice'}": 1},
        set(),
    ),
    "nothing at all": (dict.fromkeys(HEALTHY, None), {"T3BackupMetricsAbsent"}),
}


@needs_promtool
@pytest.mark.parametrize(("changes", "firing"), SITUATIONS.values(), ids=SITUATIONS)
def test_the_alerts_of_a_situation_fire_and_no_others(changes: dict[str, float | None], firing: set[str], tmp_path: Path) -> None:
    series = []
    for name, value in (HEALTHY | changes).items():
        label = "instance='vm'" if name.endswith("}") else "{instance='vm'}"
        full = f"t3_backup_{name[:-1]},{label}}}" if name.endswith("}") else f"t3_backup_{name}{label}"
        if value is not None:
            series.append({"series": full.replace("'", '"'), "values": f"{value:.0f}x{NIGHT // 60 + 1}"})
    # Which alerts fire is what ALERTS itself says: the series that Prometheus makes of each.
    wanted = [{"labels": f"ALERTS{{{labels(name)}}}", "value": 1} for name in sorted(firing)]
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{NIGHT}s", "exp_samples": wanted}],
    }
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", file)


def labels(name: str) -> str:
    """Those of an alert that fires in a situation above."""
    of_all = {"alertname": name, "alertstate": "firing", "severity": RULES[name]["labels"]["severity"]}
    if name != "T3BackupMetricsAbsent":
        of_all["instance"] = "vm"
    if name in ("T3BackupTooOld", "T3BackupNeverMade", "T3BackupHeld", "T3BackupFailing"):
        of_all["account"] = "alice"
    return ",".join(f'{key}="{value}"' for key, value in of_all.items())
