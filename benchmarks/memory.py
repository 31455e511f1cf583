"""Measures the memory of an ended turn in Redis, by kind of data."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import httpx2
import redis

from benchmarks.contest import Servers
from benchmarks.results import Metric, Results
from benchmarks.running import runtime

QUESTION: Final = "When will my order come?"
"""A message of five words. The agent repeats it, so a reply has five words too."""

AT_ONCE: Final = 8

BYTES: Final = Metric(case="memory", name="Redis's memory of an ended turn", unit="bytes")
SHARES: Final = Metric(case="memory", name="its shares", unit="bytes")

_UNLIMITED: Final[dict[str, Any]] = {"gateway_requests_per_minute": 0}

KINDS: Final = {
    b":events": "its events",
    b":messages": "its messages",
    b":meta": "the conversation made for it",
    b":journal": "its journal",
    b":calls": "its calls",
    b":blobs": "images and files",
    b":ends": "the end, for those who follow ends",
}


def memory(results: Results, servers: Servers, *, turns: int) -> None:
    """Measure turns of new conversations through the gateway, plain and streamed."""
    with runtime(servers, gateway=True, **_UNLIMITED) as running:
        url = running.stack.gateway_url or ""
        for who, stream in (("answered at once", False), ("streamed", True)):
            asyncio.run(_ask(url, AT_ONCE, stream=stream))
            before = _shares(running.client)
            asyncio.run(_ask(url, turns, stream=stream))
            after = _shares(running.client)
            results.add(BYTES, who, (after.total() - before.total()) / turns)
            for kind in sorted(after | before):
                share = (after[kind] - before[kind]) / turns
                if abs(share) >= 1:
                    results.add(SHARES, f"{who}: {kind}", share)


async def _ask(url: str, turns: int, *, stream: bool) -> None:
    """Run turns, each in its own conversation, a few at the same time."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        numbers = iter(range(turns))

        async def some() -> None:
            body = {"model": "plain", "input": QUESTION, "stream": stream}
            for _ in numbers:
                response = await client.post("/v1/responses", json=body)
                response.raise_for_status()

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def _shares(server: redis.Redis) -> Counter[str]:
    """Bytes by kind of key."""
    found: Counter[str] = Counter()
    keys = list(server.scan_iter("agentapi:*", count=1000))
    for chunk in _chunks(keys, 1000):
        pipeline = server.pipeline(transaction=False)
        for key in chunk:
            pipeline.memory_usage(key, samples=0)
        for key, size in zip(chunk, pipeline.execute(), strict=True):
            found[_kind(key)] += size or 0
    return found


def _chunks(keys: list[bytes], size: int) -> Iterator[list[bytes]]:
    for first in range(0, len(keys), size):
        yield keys[first : first + size]


def _kind(key: bytes) -> str:
    if key.startswith(b"agentapi:gateway:"):
        return "the gateway's counts"
    if b":list:" in key:
        return "lists"
    for end, kind in KINDS.items():
        if key.endswith(end):
            return kind
    return "its record" if b":t:" in key else "other"
