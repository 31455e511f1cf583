"""One stack with a gateway for all tests of this folder, and keys of two tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from agentapi import Settings
from agentapi.redis.aio import connect
from orchestrator.gateway.tenants.keys import KeyStore
from orchestrator.stack import Stack

TIMEOUT = 90
"""Seconds that a client waits for an answer. Long, because the machine may be busy."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A gateway, and how its tenants reach it."""

    stack: Stack
    acme: str
    evil: str

    @property
    def url(self) -> str:
        assert self.stack.gateway_url is not None
        return self.stack.gateway_url

    def http(self, key: str | None = None) -> httpx2.Client:
        headers = {"authorization": f"Bearer {key or self.acme}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=TIMEOUT)

    def openai(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        """The real client in strict mode: an answer that does not match OpenAI's types raises."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=key or self.acme,
            **{
                "max_retries": 0,
                "_strict_response_validation": True,
                "timeout": TIMEOUT,
                **options,
            },
        )


def make_key(settings: Settings, tenant: str) -> str:
    async def make() -> str:
        client = connect(settings, connections=1)
        try:
            return (await KeyStore(settings, client).create(tenant, "test"))[1]
        finally:
            await client.aclose()

    return asyncio.run(make())


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("gateway")
    with Stack(
        folder,
        agents=("tests.acceptance.agents", "tests.gateway.agents"),
        workers=1,
        flower=False,
        gateway=True,
        heartbeat=0.5,
        dispatch_grace=1,
        shutdown_grace=1,
        gateway_requests_per_minute=0,
        gateway_turns_in_flight=0,
        gateway_wrong_keys_per_minute=0,
        gateway_heartbeat=0.3,
        archive_url=f"sqlite:///{folder / 'archive.db'}",
    ) as stack:
        settings = stack.settings
        yield Served(stack=stack, acme=make_key(settings, "acme"), evil=make_key(settings, "evil"))


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with served.openai() as made:
        yield made


@pytest.fixture
def http(served: Served) -> Iterator[httpx2.Client]:
    with served.http() as made:
        yield made


@pytest.fixture(scope="module")
def stack_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    """Stacks for one module, each with its own settings."""
    started: list[Stack] = []

    def start(**settings: Any) -> Stack:
        known: dict[str, Any] = {"agents": ("tests.acceptance.agents",), "workers": 1}
        folder: Path = tmp_path_factory.mktemp("stack")
        stack = Stack(folder, flower=False, gateway=True, **{**known, **settings})
        started.append(stack)
        return stack.start()

    yield start
    for stack in started:
        stack.stop()
