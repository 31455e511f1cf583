"""A stack of this runtime to measure, with its producer."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from agentapi import load_settings
from agentapi.redis.connection import connect
from benchmarks.contenders.turn import TEXT
from benchmarks.contest import Servers
from benchmarks.processes import usage
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Child, Stack
from orchestrator.stack.processes import free_port


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A stack of this runtime, and its producer.

    Attributes:
        provider: URL of its model provider; empty for the offline provider.
    """

    stack: Stack
    orchestrator: Orchestrator
    client: redis.Redis
    provider: str = ""

    def cpu(self) -> float:
        """Seconds of processor time of the workers."""
        return usage([worker.pid for worker in self.stack.workers]).cpu

    def ask(self, agent: str, message: str, conversation_id: str | None = None) -> float:
        """Run one turn; returns its seconds."""
        began = time.perf_counter()
        self.orchestrator.enqueue(agent, message, conversation_id=conversation_id).result(60)
        return time.perf_counter() - began

    def enqueue(
        self, agent: str, conversations: Iterable[str], message: str = TEXT, *, stream: bool = False
    ) -> list[TurnHandle]:
        """Enqueue a turn in each conversation."""
        return [
            self.orchestrator.enqueue(agent, message, conversation_id=conversation, stream=stream)
            for conversation in conversations
        ]

    def wait(self, handles: Iterable[TurnHandle]) -> None:
        """Wait until all turns have ended."""
        for handle in handles:
            handle.result(120)

    def run_all(
        self, agent: str, conversations: Iterable[str], message: str = TEXT, *, stream: bool = False
    ) -> float:
        """Enqueue a turn for each conversation and wait for all; returns the seconds."""
        began = time.perf_counter()
        self.wait(self.enqueue(agent, conversations, message, stream=stream))
        return time.perf_counter() - began


@contextlib.contextmanager
def runtime(
    servers: Servers,
    *,
    workers: int = 1,
    env: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """Start a provider, and workers on an empty Valkey; stop them at the end.

    Args:
        servers: The servers that they use.
        workers: Number of worker processes.
        env: Further environment variables of the workers.
        settings: Settings of workers and producer, by field name.
    """
    broker = settings.get("broker_url", servers.redis_url)
    urls = load_settings(redis_url=servers.redis_url, broker_url=broker, redis_timeout=60)
    client = connect(urls)
    client.flushall()
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    provider = Child(
        "provider",
        [sys.executable, "-m", "benchmarks.provider", str(port), "0.01", "0.01", "10"],
        log=servers.folder / "logs" / "provider.log",
    )
    with tempfile.TemporaryDirectory(dir=servers.folder) as folder:
        stack = Stack(
            Path(folder),
            agents=("benchmarks.agents",),
            workers=workers,
            flower=False,
            redis_url=servers.redis_url,
            log_level="WARNING",
            env={"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": url, **(env or {})},
            **settings,
        )
        try:
            with stack, Orchestrator(stack.settings) as orchestrator:
                running = Running(
                    stack=stack, orchestrator=orchestrator, client=client, provider=url
                )
                for _ in range(8 * workers):
                    running.ask("plain", TEXT)
                yield running
        finally:
            provider.stop()
            client.close()
