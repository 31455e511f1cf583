"""The text of a script has what the script needs of the preludes, and no more."""

from __future__ import annotations

import re

import pytest

from agentapi.admission.scripts import SCRIPTS as PROVIDERS
from agentapi.redis.script_text import script_text
from agentapi.redis.scripts import ScriptSet
from agentapi.stores.redis.scripts import SCRIPTS
from orchestrator.gateway.tenants.scripts import SCRIPTS as TENANTS

COMMON = """-- About time.
local began
local function now()
  return began or 1
end

local function unused()
  return now()
end
"""
OWN = """local LEAST, MOST = 1, 2
-- What `unused` does is described here.
local function twice()
  return now() * MOST
end
"""


def test_a_script_gets_what_it_calls_and_what_that_calls() -> None:
    text = script_text((COMMON, OWN), "return twice()\n")
    assert "local began" in text
    assert "function now" in text
    assert "LEAST, MOST" in text
    assert text.index("began") < text.index("function now") < text.index("function twice")
    assert "unused" not in text


def test_a_script_that_calls_nothing_stays_alone() -> None:
    alone = "-- Calls twice.\nreturn 1\n"
    assert script_text((COMMON, OWN), alone) == alone


@pytest.mark.parametrize("scripts", [SCRIPTS, PROVIDERS, TENANTS], ids=lambda one: one.package)
def test_every_script_has_each_shared_function_once(scripts: ScriptSet) -> None:
    for name in scripts.names:
        text = scripts.source(name)
        for function in ("now_ms", "stored", "int"):
            assert text.count(f"local function {function}(") == (f"{function}(" in text), name


BUILT_IN = {
    *("ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "unpack"),
    *("and", "elseif", "function", "if", "in", "not", "or", "return", "until", "while"),
}
"""What comes before a bracket in Lua itself."""


def undefined(text: str) -> set[str]:
    """Functions that a Lua text calls and does not have. Redis finds out when it gets there."""
    code = re.sub(r"--.*|'[^'\n]*'|\"[^\"\n]*\"", "", text)
    known = set(BUILT_IN)
    missing = set()
    for found in re.finditer(
        r"local function (\w+)|local ((?:\w+, *)*\w+)|(?<![\w.:])([A-Za-z_]\w*) *\(", code
    ):
        function, values, called = found.groups()
        if called is None:
            known |= set(re.split(", *", function or values))
        elif called not in known:
            missing.add(called)
    return missing


@pytest.mark.parametrize("scripts", [SCRIPTS, PROVIDERS, TENANTS], ids=lambda one: one.package)
def test_every_script_calls_functions_that_exist(scripts: ScriptSet) -> None:
    found = {name: undefined(scripts.source(name)) for name in scripts.names}
    assert {name: names for name, names in found.items() if names} == {}


def test_a_function_that_does_not_exist_is_found() -> None:
    text = "local function a(b)\n  return tonumber(b) -- c(1)\nend\nif (a('d(1)')) then e(1) end"
    assert undefined(text) == {"e"}
    assert undefined("local x = later(1)\nlocal function later() end") == {"later"}
