"""What is written down agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

import agentapi.testing
import orchestrator
from agentapi import Settings
from agentapi.admission.scripts import SCRIPTS as PROVIDERS
from agentapi.redis.scripts import ScriptSet
from agentapi.stores.redis.scripts import SCRIPTS as STORES
from agentapi.stores.redis.scripts import TRANSITIONS
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.tenants.scripts import SCRIPTS as TENANTS
from tools.reference import (
    CLI_PAGE,
    EXAMPLE_ENVIRONMENT,
    SETTINGS,
    SETTINGS_PAGE,
    example_environment,
    exit_codes_page,
    exit_codes_table,
    settings_page,
)

ROOT = Path(__file__).parents[2]


def test_the_gateways_settings_are_its_own() -> None:
    """`GatewaySettings` has every field of `Settings`, so that the pages show both classes."""
    assert issubclass(SETTINGS, GatewaySettings)
    own = GatewaySettings.model_fields.keys() - Settings.model_fields.keys()
    assert own == {name for name in GatewaySettings.model_fields if name.startswith("gateway_")}


UP_TO_DATE = "`python -m tools.reference` brings it up to date"


def test_the_settings_page_has_every_setting() -> None:
    page = SETTINGS_PAGE.read_text()
    assert all(f"`AGENTAPI_{name.upper()}`" in page for name in SETTINGS.model_fields)
    assert page == settings_page(page), UP_TO_DATE


def test_the_example_environment_has_every_setting() -> None:
    text = EXAMPLE_ENVIRONMENT.read_text()
    assert all(f"\n#AGENTAPI_{name.upper()}=" in text for name in SETTINGS.model_fields)
    assert text == example_environment(), UP_TO_DATE


def test_the_page_of_the_command_line_has_every_exit_code() -> None:
    page = CLI_PAGE.read_text()
    assert exit_codes_table() in page, UP_TO_DATE
    assert page == exit_codes_page(page)


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


@pytest.mark.parametrize(
    "script",
    [folder_of(scripts) / f"{name}.lua" for scripts in SETS for name in scripts.names],
    ids=lambda script: f"{script.parents[1].name}-{script.stem}",
)
def test_every_script_names_its_arguments_first(script: Path) -> None:
    _, _, *others = script.read_text().split("\n\n")
    body = "\n\n".join(others)
    assert not re.search(r"ARGV\[\d", body), "name the argument where the script begins"


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


def test_the_readme_is_short_and_shows_code_early() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    assert any("make demo" in line for line in lines[:20])
    assert any("from orchestrator import Orchestrator" in line for line in lines[:60])


@pytest.mark.parametrize(
    ("package", "page"),
    [
        (agentapi, "docs/reference/agentapi.md"),
        (orchestrator, "docs/reference/orchestrator.md"),
        (agentapi.testing, "docs/reference/testing.md"),
    ],
)
def test_the_reference_has_every_public_name(package: ModuleType, page: str) -> None:
    described = set(re.findall(r"^::: (\S+)", (ROOT / page).read_text(), re.M))
    assert {f"{package.__name__}.{name}" for name in package.__all__} <= described


def test_every_test_that_the_reliability_page_names_is_there() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in code} == set()


def test_every_file_that_the_documents_name_is_there() -> None:
    path = re.compile(
        r"`((?:agentapi|workers|orchestrator|tests|examples|benchmarks|tools)/[\w/.]+)`"
    )
    named = {
        (page.name, found)
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        if page.name not in ("CHANGELOG.md", "extending.md")
        for found in path.findall(page.read_text())
    }
    assert len(named) > 40
    assert sorted(each for each in named if not (ROOT / each[1]).exists()) == []


MARKS_OF_TRANSLATION = re.compile(r"\bfor ever\b|\bin passing\b|\banew\b|^Of \w|\. Of \w", re.M)


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name
)
def test_pages_are_in_plain_english(page: Path) -> None:
    assert MARKS_OF_TRANSLATION.findall(page.read_text()) == []
