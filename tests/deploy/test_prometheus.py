"""The rules, read and evaluated by Prometheus' own tool."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
ALERTS = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]
CASES = Path(__file__).with_name("alerts_test.yml")


def promtool(*arguments: str) -> str:
    """Run promtool and return what it printed; a failure fails the test."""
    if shutil.which("promtool") is None:
        assert not os.environ.get("CI"), "CI installs Prometheus"
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration_and_rules_are_valid() -> None:
    said = promtool("check", "config", "deploy/prometheus/prometheus.yml")
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


def test_alerts_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", str(CASES))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_is_tried_and_says_what_to_do(alert: dict[str, Any]) -> None:
    assert f'alertname="{alert["alert"]}"' in CASES.read_text()
    assert alert["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    assert {"summary", "action"} == set(alert["annotations"])
