"""Prometheus's own tool checks the alerts, and what they say about series that we give it."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml

from agentapi.metrics import NoMetrics, install
from agentapi.metrics.server import MetricsServer
from tests.system.packages import promtool

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "deploy" / "prometheus" / "rules.yaml"


def run(*arguments: str, folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [promtool(), *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_rules_are_valid() -> None:
    done = run("check", "rules", RULES.name, folder=RULES.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_for_compose_is_valid() -> None:
    done = run("check", "config", "prometheus.yml", folder=RULES.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_the_alerts_say_what_they_should(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(HERE / "rules_test.yaml", tmp_path)
    done = run("test", "rules", "rules_test.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_test_of_the_rules_can_fail(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    tests = yaml.safe_load((HERE / "rules_test.yaml").read_text())
    tests["tests"][0]["alert_rule_test"][1]["exp_alerts"] = []
    (tmp_path / "rules_test.yaml").write_text(yaml.safe_dump(tests))
    assert run("test", "rules", "rules_test.yaml", folder=tmp_path).returncode == 1


def test_the_exported_text_passes_the_linter(tmp_path: Path) -> None:
    server = MetricsServer("127.0.0.1", 0, setting="AGENTAPI_METRICS_PORT")
    server.start()
    try:
        url = f"http://127.0.0.1:{server.port}/metrics"
        with urllib.request.urlopen(url, timeout=60) as response:
            exported = response.read().decode()
    finally:
        server.stop()
        install(NoMetrics())
    ours = "".join(line for line in exported.splitlines(keepends=True) if "agentapi_" in line)
    done = run("check", "metrics", folder=tmp_path, given=ours)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("wrong", ["sum(rate(", "max() > 1"])
def test_the_checker_refuses_what_is_wrong(tmp_path: Path, wrong: str) -> None:
    groups = {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": wrong}]}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
    assert run("check", "rules", "rules.yaml", folder=tmp_path).returncode == 1
