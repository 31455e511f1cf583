"""Fixtures for pytest: ``pytest_plugins = ["agentapi.testing.plugin"]`` in your `conftest.py`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from agentapi.errors import ProviderMisconfigured
from agentapi.providers import Provider, providers
from agentapi.testing.script import Act, ScriptedProvider, replacing

LIVE_PROVIDERS = ("openai", "openrouter", "gemini")
"""Providers that call models over the network."""

_PLAYED: Final = pytest.StashKey[list[ScriptedProvider]]()
"""The scripts of a test."""


@pytest.fixture
def no_live_model_calls() -> Iterator[None]:
    """Make model calls over the network fail immediately, with a clear message.

    For all tests: ``pytestmark = pytest.mark.usefixtures("no_live_model_calls")``, or an
    ``autouse=True`` fixture of your own that depends on this one.
    """
    with ExitStack() as replaced:
        for name in LIVE_PROVIDERS:
            replaced.enter_context(providers.replaced(name, _refusal(name)))
        yield


def _refusal(name: str) -> Callable[[], Provider]:
    def refuse() -> Provider:
        raise ProviderMisconfigured(
            f"this test would call a live model of provider {name!r}: give the agent a script "
            "(the `script` fixture), or provider='offline'",
            provider=name,
        )

    return refuse


@pytest.fixture
def script(request: pytest.FixtureRequest) -> Iterator[Callable[..., ScriptedProvider]]:
    """``script(says("hi"), ...)`` replaces a provider by a script until the test ends.

    Takes the arguments of `agentapi.testing.scripted`. A test whose script was not used fails.
    """
    played = request.node.stash.setdefault(_PLAYED, [])
    with ExitStack() as replaced:

        def play(*acts: Act, provider: str = "openai") -> ScriptedProvider:
            scripted = replaced.enter_context(replacing(*acts, provider=provider))
            played.append(scripted)
            return scripted

        yield play


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test whose script was not used. A test that fails anyway keeps its own error."""
    result = yield
    for played in item.stash.get(_PLAYED, []):
        played.check_used()
    return result


@pytest.fixture
def eager_orchestrator() -> Iterator[Callable[..., Any]]:
    """``eager_orchestrator([agent], **settings)`` returns an `Orchestrator` in eager mode.

    Turns run inside `enqueue`, in memory, without a server. It is closed when the test ends.
    """
    # By name, because agentapi must not import orchestrator.
    module = importlib.import_module("orchestrator")
    with ExitStack() as opened:

        def make(agents: Any = None, **settings: Any) -> Any:
            return opened.enter_context(module.Orchestrator.eager(agents, **settings))

        yield make
