"""Many concurrent streaming clients in one process, and what they observed."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson


@dataclass(kw_only=True)
class Seen:
    """What one client observed.

    Attributes:
        first: Seconds until its first token, or None.
        tokens: Events with text.
        faults: Descriptions of what was wrong.
    """

    first: float | None = None
    tokens: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What all clients observed. Times are in milliseconds."""

    clients: int
    whole: int
    median: float
    p99: float
    faults: list[str]


def figures(seen: list[Seen], tokens: int) -> Figures:
    """Summarise. A stream is complete if it had every token and no fault."""
    times = sorted(client.first for client in seen if client.first is not None)
    return Figures(
        clients=len(seen),
        whole=sum(client.tokens == tokens and not client.faults for client in seen),
        median=statistics.median(times) * 1000,
        p99=times[int(len(times) * 0.99) - 1] * 1000,
        faults=sorted({fault for client in seen for fault in client.faults}),
    )


async def stream_all(
    url: str, body: dict[str, Any], clients: int, ramp: float, headers: dict[str, str]
) -> list[Seen]:
    """Start clients evenly over `ramp` seconds, each with one stream.

    Args:
        url: URL to post to.
        body: Body of the request.
        clients: Number of clients.
        ramp: Seconds over which the clients start.
        headers: Headers of every request.
    """
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def one(number: int) -> Seen:
            await asyncio.sleep(ramp * number / clients)
            return await _stream(session, url, body, headers)

        return await asyncio.gather(*(one(number) for number in range(clients)))


async def _stream(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], headers: dict[str, str]
) -> Seen:
    loop = asyncio.get_running_loop()
    seen = Seen()
    began = loop.time()
    number, last = -1, ""
    try:
        async with session.post(url, json=body, headers=headers) as response:
            if response.status != 200:
                seen.faults.append(f"status {response.status}")
                return seen
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                event = orjson.loads(line[6:])
                if "sequence_number" in event:
                    if event["sequence_number"] != number + 1:
                        seen.faults.append("an event is missing or came twice")
                    number, last = event["sequence_number"], event["type"]
                if _text(event):
                    seen.first = seen.first or loop.time() - began
                    seen.tokens += _text(event).count(" ")
    except (aiohttp.ClientError, TimeoutError) as error:
        seen.faults.append(type(error).__name__)
    if number >= 0 and last != "response.completed":
        seen.faults.append(f"ended with {last}")
    return seen


def _text(event: dict[str, Any]) -> str:
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    if choices := event.get("choices"):
        return str(choices[0]["delta"].get("content") or "")
    return ""
