"""What no schema sees: that the files in deploy/ fit each other, the image and the settings."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from agentapi import Settings
from agentapi.broker.wire import queue_names
from agentapi.stores import Backlog
from orchestrator.cli.worker import KILL_MARGIN
from orchestrator.gateway.measuring import FleetGauges
from orchestrator.gateway.settings import GatewaySettings
from tests.deploy.files import DEPLOY, OVERLAYS, compose, overlay
from tests.deploy.image import DOCKERFILE, final_image
from tests.documents.commands import check_command, check_variable

# The first test downloads the programs.
pytestmark = pytest.mark.timeout(600)

IMAGE: Final = final_image(DOCKERFILE.read_text())
GRACE: Final = float(Settings.model_fields["shutdown_grace"].default)
MARGIN: Final = 5.0
"""Seconds that are left when all has gone as slowly as it may."""

OURS: Final = ("agentapi-worker", "agentapi-gateway", "agentapi-flower")
GUIDE: Final = (DEPLOY.parent / "docs/guides/deploy.md").read_text()


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    return overlay(request.param, tmp_path_factory.mktemp("kubernetes"))


def of_kind(manifests: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [one for one in manifests if one["kind"] in kinds]


def pods_of(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Templates of pods by the name of what makes them."""
    found = of_kind(manifests, "Deployment", "StatefulSet")
    return {one["metadata"]["name"]: one["spec"]["template"] for one in found}


def seconds(text: str) -> float:
    """A time such as 45s, or as systemd writes it."""
    return float(text.removesuffix("s"))


def unit(name: str) -> dict[str, list[str]]:
    """The options of a unit, each with all its values."""

    class Values(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(
        strict=False, dict_type=Values, empty_lines_in_values=False
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / "systemd" / name).read_text())
    return {key: value.split("\n") for key, value in parser["Service"].items()}


def stops_after() -> dict[tuple[str, str], float]:
    """Seconds that each platform gives a process between SIGTERM and SIGKILL."""
    services = compose()["services"]
    found = {}
    for name in ("worker", "gateway"):
        found["Compose", name] = seconds(services[name]["stop_grace_period"])
        path = DEPLOY / f"kubernetes/base/{name}.yaml"
        manifest = next(yaml.safe_load_all(path.read_text()))
        pod = manifest["spec"]["template"]["spec"]
        found["Kubernetes", name] = float(pod["terminationGracePeriodSeconds"])
    found["systemd", "worker"] = seconds(unit("agentapi-worker@.service")["TimeoutStopSec"][0])
    found["systemd", "gateway"] = seconds(unit("agentapi-gateway.service")["TimeoutStopSec"][0])
    return found


def pre_stop() -> float:
    """Seconds for which Kubernetes waits before it sends SIGTERM to the gateway."""
    gateway = next(yaml.safe_load_all((DEPLOY / "kubernetes/base/gateway.yaml").read_text()))
    [container] = gateway["spec"]["template"]["spec"]["containers"]
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command[0] == "sleep"
    return float(command[1])


def test_graceful_times_fit_together() -> None:
    """No platform kills a process that still hands turns back, or ends streams."""
    found = stops_after()
    assert len(found) == 6
    for (platform, name), limit in found.items():
        needed = GRACE + (KILL_MARGIN if name == "worker" else 0)
        if (platform, name) == ("Kubernetes", "gateway"):
            needed += pre_stop()
        assert limit >= needed + MARGIN, f"{name} on {platform}"


def test_nothing_changes_the_graceful_time_that_the_files_count_on(
    manifests: list[dict[str, Any]],
) -> None:
    variable = "AGENTAPI_SHUTDOWN_GRACE"
    for service in compose()["services"].values():
        assert variable not in service.get("environment", {})
    assert variable not in IMAGE.env
    for config in of_kind(manifests, "ConfigMap"):
        assert float(config["data"].get(variable, GRACE)) == GRACE


def test_the_guides_table_has_the_times_of_the_files() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in GUIDE.splitlines()
        if line.startswith("| ")
    ]
    table = {row[0]: row[1:] for row in rows}
    for process in ("worker", "gateway"):
        cells = table[f"{process}: SIGKILL after"]
        found = stops_after()
        assert [float(cell.removesuffix(" s")) for cell in cells] == [
            found[platform, process] for platform in ("systemd", "Compose", "Kubernetes")
        ]
    assert table["both: soft shutdown (`AGENTAPI_SHUTDOWN_GRACE`)"] == [f"{GRACE:g} s"] * 3
    assert table["worker: then hands turns back, at most"] == [f"{KILL_MARGIN:g} s"] * 3
    assert table["gateway: before SIGTERM (`preStop`)"] == ["-", "-", f"{pre_stop():g} s"]


def test_pods_have_no_rights(manifests: list[dict[str, Any]]) -> None:
    for name, template in pods_of(manifests).items():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
        if name in OURS:
            uid, gid = IMAGE.user.split(":")
            assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (
                int(uid),
                int(gid),
            )


def test_no_service_puts_variables_into_pods(manifests: list[dict[str, Any]]) -> None:
    """A service named agentapi-gateway would set AGENTAPI_GATEWAY_PORT to tcp://10.0.0.1:80."""
    for name, template in pods_of(manifests).items():
        assert template["spec"]["enableServiceLinks"] is False, name


def test_selectors_and_ports_match(manifests: list[dict[str, Any]]) -> None:
    templates = pods_of(manifests)
    labels = [template["metadata"]["labels"] for template in templates.values()]
    ports = {
        (template["metadata"]["labels"]["app.kubernetes.io/name"], port["name"])
        for template in templates.values()
        for container in template["spec"]["containers"]
        for port in container["ports"]
    }
    named = {port for _, port in ports}

    def chosen(selector: dict[str, str]) -> bool:
        return any(selector.items() <= each.items() for each in labels)

    for one in of_kind(manifests, "Deployment", "StatefulSet", "PodDisruptionBudget"):
        assert chosen(one["spec"]["selector"]["matchLabels"]), one["metadata"]["name"]
    for one in of_kind(manifests, "Service"):
        assert chosen(one["spec"]["selector"])
        for port in one["spec"]["ports"]:
            assert (one["spec"]["selector"]["app.kubernetes.io/name"], port["targetPort"]) in ports
    for one in of_kind(manifests, "NetworkPolicy"):
        assert chosen(one["spec"]["podSelector"].get("matchLabels", {})), one["metadata"]["name"]
        for rule in one["spec"].get("ingress", ()):
            for port in rule["ports"]:
                assert port["port"] in named


def test_each_process_of_ours_has_what_disruptions_need(manifests: list[dict[str, Any]]) -> None:
    budgets = {one["metadata"]["name"] for one in of_kind(manifests, "PodDisruptionBudget")}
    assert budgets == {"agentapi-worker", "agentapi-gateway"}
    pods = pods_of(manifests)
    [gateway] = pods["agentapi-gateway"]["spec"]["containers"]
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/healthz"
    [worker] = pods["agentapi-worker"]["spec"]["containers"]
    assert worker["readinessProbe"]["exec"]["command"] == IMAGE.healthcheck
    # It has the image's command, without which the probe has no file to read.
    assert not {"command", "args"} & set(worker)
    assert "--ready-file" in IMAGE.command


def variables_of(manifests: list[dict[str, Any]]) -> set[str]:
    found = {name for one in of_kind(manifests, "ConfigMap", "Secret") for name in one["data"]}
    for template in pods_of(manifests).values():
        for container in template["spec"]["containers"]:
            found |= {pair["name"] for pair in container.get("env", ())}
    return found


def test_variables_are_settings(manifests: list[dict[str, Any]]) -> None:
    found = variables_of(manifests)
    for service in compose()["services"].values():
        found |= set(service.get("environment", {}))
    found |= {name for name in IMAGE.env if name.startswith("AGENTAPI_")}
    assert {"AGENTAPI_AGENTS", "AGENTAPI_REDIS_URL", "AGENTAPI_METRICS_PORT"} <= found
    for name in found:
        check_variable(name)


def test_commands_exist(manifests: list[dict[str, Any]]) -> None:
    commands = [IMAGE.command]
    for service in compose()["services"].values():
        if service.get("image", "").startswith("${AGENTAPI_IMAGE"):
            commands.append(service.get("command", IMAGE.command))
    for name in OURS:
        for container in pods_of(manifests)[name]["spec"]["containers"]:
            commands.append(container.get("args", IMAGE.command))
    for path in (DEPLOY / "systemd").iterdir():
        words = shlex.split(unit(path.name)["ExecStart"][0].replace("${PROCESSES}", "2"))
        at = next(n for n, word in enumerate(words) if word.endswith(("/agentapi", "/celery")))
        commands.append([Path(words[at]).name, *words[at + 1 :]])
    assert len(commands) > 8
    for command in commands:
        if command != ["--help"]:
            check_command(list(command))


def test_json_is_how_containers_log(manifests: list[dict[str, Any]]) -> None:
    assert IMAGE.env["AGENTAPI_LOG_FORMAT"] == "json"
    for name in ("worker", "gateway"):
        assert "AGENTAPI_LOG_FORMAT" not in compose()["services"][name]["environment"]
    assert "AGENTAPI_LOG_FORMAT" not in variables_of(manifests)


class Store:
    def backlog(self) -> Backlog:
        return Backlog(ready={0: 2}, running=3, parked={})

    def since_sweep(self) -> float | None:
        return None


def test_keda_reads_the_gateways_demand(tmp_path: Path) -> None:
    manifests = overlay("production", tmp_path)
    [scaled] = of_kind(manifests, "ScaledObject")
    [trigger] = scaled["spec"]["triggers"]
    asked = trigger["metadata"]
    where = re.fullmatch(r"http://([\w-]+)\.([\w-]+)\.svc:(\d+)(/\w+)", asked["url"])
    assert where is not None
    name, namespace, port, path = where.groups()
    [service] = [one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == name]
    assert service["metadata"]["namespace"] == namespace
    assert service["spec"]["ports"][0]["port"] == int(port)
    [gateway] = pods_of(manifests)["agentapi-gateway"]["spec"]["containers"]
    env = {pair["name"]: pair["value"] for pair in gateway["env"]}
    assert env["AGENTAPI_GATEWAY_METRICS_PORT"] == port
    assert path == "/demand"
    queues = len(queue_names(Settings.model_fields["queues"].default))
    answer = json.loads(FleetGauges(Store(), queues).demand()[1])
    assert answer[asked["valueLocation"]] == 5
    slots = Settings.model_fields["concurrency"].default
    assert 0 < float(asked["targetValue"]) <= slots
    # KEDA sets the number, so the manifest must not.
    [worker] = [one for one in of_kind(manifests, "Deployment")
                if one["metadata"]["name"] == scaled["spec"]["scaleTargetRef"]["name"]]  # fmt: skip
    assert "replicas" not in worker["spec"]
    assert scaled["spec"]["minReplicaCount"] >= 1


def test_prometheus_scrapes_ports_that_are_served() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    scraped = {tuple(found["names"]): found["port"] for found in job["dns_sd_configs"]}
    services = compose()["services"]
    assert scraped == {
        ("worker",): int(services["worker"]["environment"]["AGENTAPI_METRICS_PORT"]),
        ("gateway",): int(services["gateway"]["environment"]["AGENTAPI_GATEWAY_METRICS_PORT"]),
    }
    assert config["rule_files"] == ["rules.yaml"]
    assert GatewaySettings.model_fields["gateway_metrics_port"]


def test_systemd_reloads_without_a_stop() -> None:
    worker = unit("agentapi-worker@.service")
    assert worker["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert "--supervise" in worker["ExecStart"][0]
    assert worker["Type"] == ["notify"]
    # Else systemd would stop all processes when the kernel kills one for its memory.
    assert worker["OOMPolicy"] == ["continue"]
    for path in (DEPLOY / "systemd").iterdir():
        options = unit(path.name)
        for option in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "PrivateDevices"):
            assert options[option] == ["yes"], path.name
        assert options["ProtectSystem"] == ["strict"]
        assert options["CapabilityBoundingSet"] == [""]
        assert options["User"] == ["agentapi"]
