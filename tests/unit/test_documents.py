"""What is written down agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agentapi import Settings
from agentapi.admission.scripts import SCRIPTS as PROVIDERS
from agentapi.redis.scripts import ScriptSet
from agentapi.stores.redis.scripts import SCRIPTS as STORES
from agentapi.stores.redis.scripts import TRANSITIONS
from orchestrator.gateway.tenants.scripts import SCRIPTS as TENANTS

ROOT = Path(__file__).parents[2]


def default_of(name: str) -> str:
    field = Settings.model_fields[name]
    if name == "broker_url":
        return "AGENTAPI_REDIS_URL"
    value: Any = field.default
    if value is None or value == ():
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = f"`{default_of(name)}`" if default_of(name) else ""
        rows.append(f"| `AGENTAPI_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def test_readme_has_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- settings -->\n(.*)\n<!-- /settings -->", readme, re.S)
    assert found is not None
    assert found[1] == settings_table()


def test_example_environment_has_every_setting() -> None:
    lines = (ROOT / "deploy/agentapi.env.example").read_text().splitlines()
    for name, field in Settings.model_fields.items():
        at = lines.index(f"#AGENTAPI_{name.upper()}={default_of(name)}")
        assert lines[at - 1] == f"# {field.description}"


SETS = (STORES, PROVIDERS, TENANTS)


def folder_of(scripts: ScriptSet) -> Path:
    return ROOT.joinpath(*scripts.package.split("."), "lua")


@pytest.mark.parametrize(
    "script",
    [folder_of(scripts) / f"{name}.lua" for scripts in SETS for name in scripts.names],
    ids=lambda script: f"{script.parents[1].name}-{script.stem}",
)
def test_every_script_has_a_header(script: Path) -> None:
    header = script.read_text().split("\n\n")[0]
    for part in ("-- KEYS ", "-- ARGV ", "-- Returns ", "-- Promise"):
        assert part in header, f"{script.name} lacks {part!r}"


@pytest.mark.parametrize("scripts", SETS, ids=lambda scripts: scripts.package)
def test_every_script_is_known(scripts: ScriptSet) -> None:
    files = {path.stem for path in folder_of(scripts).glob("*.lua")}
    assert files == {*scripts.names, "prelude"}


def test_every_script_about_providers_is_described() -> None:
    page = (ROOT / "docs/providers.md").read_text()
    assert all(f"| `{name}` |" in page for name in PROVIDERS.names)


def test_every_transition_is_described() -> None:
    protocol = (ROOT / "docs/protocol.md").read_text()
    for name in set(TRANSITIONS) - {"elect"}:
        assert f"`{name}`" in protocol


def test_readme_runs_code_early() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any("make demo" in line for line in lines[:20])
    assert any("from orchestrator import Orchestrator" in line for line in lines[:60])


def test_every_test_that_the_reliability_page_names_is_there() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in code} == set()
