"""Alerts fire when they should, and the dashboard is the one that its table makes."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"


def promtool(*args: str) -> str:
    tool = shutil.which("promtool")
    if tool is None:
        assert not os.environ.get("ALL_TOOLS_REQUIRED"), "no promtool"
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    done = subprocess.run(
        [tool, *args], cwd=MONITORING, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_do_what_they_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    cases = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    names = {rule["alert"] for rule in rules}
    assert {c["alertname"] for c in checks if c.get("exp_alerts")} == names
    assert {c["alertname"] for c in checks if not c.get("exp_alerts")} == names


def test_the_configuration_is_one_that_prometheus_takes() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_the_dashboard_is_current() -> None:
    make = runpy.run_path(str(MONITORING / "make_dashboard.py"))
    file = MONITORING / "grafana" / "dashboards" / "foldserve.json"
    assert json.loads(file.read_text()) == make["dashboard"]()


def test_panels_do_not_overlap() -> None:
    make = runpy.run_path(str(MONITORING / "make_dashboard.py"))
    taken: set[tuple[int, int]] = set()
    for panel in make["dashboard"]()["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_compose_mounts_what_is_there() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        for volume in services[name]["volumes"]:
            assert (ROOT / volume.split(":")[0]).is_dir()
