"""hadolint, Compose, kustomize and the schemas of Kubernetes read what is in deploy/."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.files import DEPLOY, OVERLAYS, check, compose, overlay, tools
from tests.deploy.image import DOCKERFILE

# The first test downloads the programs.
pytestmark = pytest.mark.timeout(600)

COMPOSE: Final = str(DEPLOY / "compose.yaml")
LOGIN: Final = {"FLOWER_BASIC_AUTH": "me:a-password"}
NEWEST: Final = "1.37.0"
OLDEST: Final = "1.29.0"
"""Versions of Kubernetes whose schemas are asked."""

ROUND_TRIP: Final = """
import json, sys
from cloudcoil.models.keda.v1alpha1 import ScaledObject
found = ScaledObject.model_validate(json.load(sys.stdin))
print(found.model_dump_json(by_alias=True, exclude_none=True))
"""


def test_the_dockerfile_passes_its_linter(tmp_path: Path) -> None:
    done = check("hadolint", str(DOCKERFILE))
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(DOCKERFILE.read_text().replace('CMD ["agentapi", ', "CMD agentapi "))
    assert "DL3025" in check("hadolint", str(wrong)).stdout


def test_compose_reads_its_file(tmp_path: Path) -> None:
    for profile in ("", "cli"):
        done = check(
            "docker-compose", "-f", COMPOSE, "config", "-q", COMPOSE_PROFILES=profile, **LOGIN
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(Path(COMPOSE).read_text().replace("stop_grace_period", "stop_grace_time"))
    assert check("docker-compose", "-f", str(wrong), "config", "-q", **LOGIN).returncode != 0


def test_flower_needs_a_password() -> None:
    done = check("docker-compose", "-f", COMPOSE, "config", "-q", FLOWER_BASIC_AUTH="")
    assert done.returncode != 0
    assert "set FLOWER_BASIC_AUTH to a user and a password" in done.stderr


def test_compose_opens_ports_on_loopback_only() -> None:
    done = check(
        "docker-compose", "-f", COMPOSE, "config", "--format", "json", COMPOSE_PROFILES="cli",
        **LOGIN,
    )  # fmt: skip
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    assert set(services) == {"cli", "flower", "gateway", "prometheus", "valkey", "worker"}
    for service in services.values():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ()))
        assert service["read_only"]
    assert not services["valkey"].get("ports")
    assert set(services["valkey"]["networks"]) == {"inside"}
    for name in ("worker", "gateway", "flower", "cli"):
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["image"] == "agentapi:local"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", OVERLAYS)
def test_kubernetes_accepts_the_manifests(name: str, version: str, tmp_path: Path) -> None:
    found = overlay(name, tmp_path / "copy")
    done = _validated(found, tmp_path, version)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    warned = [line for line in lines if not line.startswith("INFO")]
    # It knows no kinds but Kubernetes's own.
    assert all("kind ScaledObject" in line for line in warned), warned
    assert len(lines) == len(found)


def _validated(
    found: list[dict[str, Any]], folder: Path, version: str
) -> subprocess.CompletedProcess[str]:
    path = folder / "all.yaml"
    path.write_text(yaml.safe_dump_all(found))
    return check("kubernetes-validate", "--strict", "-k", version, str(path))


def test_a_field_that_does_not_exist_is_found(tmp_path: Path) -> None:
    found = overlay("trial", tmp_path / "copy")
    [worker] = [one for one in found if one["metadata"]["name"] == "agentapi-worker" and
                one["kind"] == "Deployment"]  # fmt: skip
    pod = worker["spec"]["template"]["spec"]
    pod["terminationGraceSeconds"] = pod.pop("terminationGracePeriodSeconds")
    assert _validated(found, tmp_path, NEWEST).returncode != 0


def test_keda_knows_all_fields(tmp_path: Path) -> None:
    found = overlay("production", tmp_path / "copy")
    [scaled] = [one for one in found if one["kind"] == "ScaledObject"]
    for given, equal in ((scaled, True), (_with_a_typo(scaled), False)):
        done = subprocess.run(
            [str(tools() / "python"), "-c", ROUND_TRIP],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        # The model leaves out what it does not know.
        assert (json.loads(done.stdout) == given) is equal


def _with_a_typo(scaled: dict[str, Any]) -> dict[str, Any]:
    return {**scaled, "spec": {**scaled["spec"], "maxReplicasCount": 3}}


def test_compose_mounts_files_that_are_there() -> None:
    for mount in compose()["services"]["prometheus"]["volumes"]:
        source = mount.partition(":")[0]
        if source.startswith("."):
            assert {path.name for path in (DEPLOY / source).iterdir()} >= {
                "prometheus.yml",
                "rules.yaml",
            }
