"""Everything that the targets need, started once: servers, runtime, agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from weakref import WeakKeyDictionary

from agentapi import Agent, load_settings, register_provider
from agentapi.providers import Provider
from agentapi.tools.mcp import session as mcp_session
from tests.fuzz.odd_server import odd_server
from tests.fuzz.rig import INNOCENT, Rig
from tests.fuzz.served import reading, serving
from tests.fuzz.target import Target
from tests.fuzz.targets import (
    chat,
    clients,
    functions,
    gemini,
    mcp,
    producers,
    records,
    tools,
)
from tests.fuzz.targets.providers import Models
from workers.turns import unreadable

INNOCENT_AGENT: Final = Agent(name=INNOCENT, provider="offline")


INNOCENTS: Final = {
    INNOCENT: "{}",
    "fine-chat": "{}",
    "fine-gemini": "{}",
    "fine-mcp": '/fine_read {"title": "{}"}',
}


def _shared(make: Callable[[], Any]) -> Callable[[], Provider]:
    """One client for the victim and the innocent, so that they share its connections."""
    made: WeakKeyDictionary[asyncio.AbstractEventLoop, Provider] = WeakKeyDictionary()

    def factory() -> Provider:
        loop = asyncio.get_running_loop()
        if loop not in made:
            made[loop] = make()
        return made[loop]

    return factory


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is running."""

    rig: Rig
    targets: Mapping[str, Target]


@contextmanager
def bench(redis_url: str, folder: Path) -> Iterator[Bench]:
    """Start all of it, on a Redis that is there.

    Args:
        redis_url: The Redis, which is emptied.
        folder: For logs and files.
    """
    with ExitStack() as stack:
        models = {"chat": Models(chat.otherwise), "gemini": Models(gemini.otherwise)}
        chat_server = stack.enter_context(odd_server(models["chat"]))
        gemini_server = stack.enter_context(odd_server(models["gemini"]))
        mcp_server = mcp.FakeServer()
        mcp_url = stack.enter_context(odd_server(mcp_server)).url
        _register("chat", lambda: chat.ChatTarget.client(chat_server.url))
        _register("gemini", lambda: gemini.GeminiTarget.client(gemini_server.url))
        register_provider("odd-calls", tools.OddCalls)
        agents = [INNOCENT_AGENT, *chat.agents(), *gemini.agents(), *tools.agents()]
        agents += functions.agents()
        fresh = mcp.FreshServer(mcp_url)
        agents += [*mcp.agents(mcp_url, fresh), *records.agents(), *producers.agents()]
        served = stack.enter_context(serving(folder))
        reader = stack.enter_context(reading(redis_url, folder))
        rig = Rig(_settings(redis_url), agents, INNOCENTS)
        stack.callback(rig.close)
        # What was to be connected is; what is odd may not take a turn's whole time.
        stack.enter_context(patch.object(mcp_session, "CONNECT_TIMEOUT", 3.0))
        # No newer worker will come.
        stack.enter_context(patch.object(unreadable, "MOST_DEFERRALS", 0))
        targets: list[Target] = [
            chat.ChatTarget(rig, models["chat"]),
            gemini.GeminiTarget(rig, models["gemini"]),
            tools.ToolTarget(rig),
            functions.FunctionTarget(rig),
            mcp.McpTarget(rig, mcp_server, fresh),
            records.RecordTarget(rig, reader),
            producers.ProducerTarget(rig),
            clients.ClientTarget(served),
        ]
        yield Bench(rig=rig, targets={target.name: target for target in targets})


def _register(name: str, make: Callable[[], Any]) -> None:
    factory = _shared(make)
    register_provider(f"odd-{name}", factory)
    register_provider(f"fine-{name}", factory)


def _settings(redis_url: str) -> Any:
    return load_settings(
        redis_url=redis_url,
        broker_url=redis_url,
        provider_max_retries=0,
        provider_patience=0,
        park_after=0.5,
        lease_ttl=4,
        heartbeat=0.5,
        sweep_interval=0.25,
        dispatch_grace=2,
        memory_ttl=3600,
        turn_retention=3600,
        turn_timeout=20,
        shutdown_grace=0,
        watchdog=False,
    )
