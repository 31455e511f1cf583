"""Benchmark cases of this runtime alone: the cost of a history, a queue, a tool or a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import count, islice
from typing import Any

import redis

from agentapi.conversation.messages import AssistantMessage, Message, UserMessage, dumps
from agentapi.ids import partition_of
from agentapi.providers.base import ModelRequest, TextDelta
from agentapi.providers.openai.client import OpenAIProvider
from agentapi.redis.keys import conversation_keys
from agentapi.turns import EventType
from benchmarks.contenders.turn import TEXT
from benchmarks.contest import Servers
from benchmarks.processes import usage
from benchmarks.results import Metric, Results
from benchmarks.running import Running, runtime
from benchmarks.stats import percentile, summarize

_MS = 1000


def histories(results: Results, running: Running, *, turns: int) -> None:
    """Run turns with a window of 20 messages, alternating between histories of three lengths."""
    case = "latency by length of the history, window of 20 messages"
    lengths = (10, 1_000, 10_000)
    for length in lengths:
        pair: list[Message] = [
            UserMessage(content=TEXT),
            AssistantMessage(content="It comes tomorrow."),
        ]
        messages = [dumps(message) for message in pair] * (length // 2)
        running.client.rpush(conversation_keys(f"h-{length}").messages, *messages)
    seconds: dict[int, list[float]] = {length: [] for length in lengths}
    for _ in range(turns):
        for length in lengths:
            seconds[length].append(running.ask("plain", TEXT, f"h-{length}"))
    metric = Metric(case=case, name="median", unit="ms", base=f"{lengths[0]:,} messages")
    for length in lengths:
        results.add(metric, f"{length:,} messages", summarize(seconds[length]).median * _MS)


def queued(results: Results, running: Running) -> None:
    """Run 100 turns queued in one conversation, and 100 turns in 100 conversations."""
    many, one = "100 conversations", "one conversation"
    metric = Metric(case="100 queued turns", name="turns a second", unit="1/s", base=many)
    conversations = [f"q-{number}" for number in range(100)]
    results.add(metric, many, 100 / running.run_all("plain", conversations))
    results.add(metric, one, 100 / running.run_all("plain", ["q"] * 100))


def hot_partition(results: Results, running: Running, *, turns: int) -> None:
    """Run turns of conversations in one partition, and so in one queue and one hash slot."""
    spread, hot = "all partitions", "one partition"
    metric = Metric(case="a hot partition", name="turns a second", unit="1/s", base=spread)
    anywhere = [f"p-{number}" for number in range(turns)]
    found = (f"p-{number}" for number in count())
    together = list(islice((name for name in found if partition_of(name) == 7), turns))
    results.add(metric, spread, turns / running.run_all("plain", anywhere))
    results.add(metric, hot, turns / running.run_all("plain", together))


def tool_step(results: Results, running: Running, *, turns: int) -> None:
    """Measure what a tool call, with the response that makes it, adds to a turn."""
    case = "a step with a tool"
    messages = {"no tool": TEXT, "one tool call": '/look {"what": "the order"}'}
    latency = Metric(case=case, name="latency, median", unit="ms", base="no tool")
    cost = Metric(case=case, name="processor time of workers, a turn", unit="ms", base="no tool")
    seconds: dict[str, list[float]] = {name: [] for name in messages}
    for _ in range(turns // 5):
        for name, message in messages.items():
            seconds[name].append(running.ask("looker", message))
    for name, message in messages.items():
        before = running.cpu()
        running.run_all("looker", [f"{name}-{number}" for number in range(turns)], message)
        results.add(cost, name, (running.cpu() - before) / turns * _MS)
        results.add(latency, name, summarize(seconds[name]).median * _MS)


def streaming(results: Results, running: Running, *, turns: int) -> None:
    """Measure the time to the first token, compared with the provider alone, and a token's cost."""
    case = "streaming"
    direct: list[float] = []
    through: list[float] = []
    with asyncio.Runner() as runner:
        alone = OpenAIProvider(api_key="none", base_url=running.provider, default_model="fake")
        _first_token(running)
        runner.run(_first_token_alone(alone))
        for _ in range(turns):
            direct.append(runner.run(_first_token_alone(alone)))
            through.append(_first_token(running))
        runner.run(alone.aclose())
    for name, share in (("median", 0.5), ("99th percentile", 0.99)):
        metric = Metric(case=case, name=f"time to the first token, {name}", unit="ms")
        times = percentile(direct, share) * _MS, percentile(through, share) * _MS
        results.add(metric, "provider alone", times[0])
        results.add(metric, "through this runtime", times[1])
        results.add(metric, "added", times[1] - times[0])
    metric = Metric(case=case, name="processor time of workers, a token", unit="µs")
    results.add(metric, "this runtime", _cost_of_a_token(running) * _MS * _MS)


async def _first_token_alone(provider: OpenAIProvider) -> float:
    request = ModelRequest(
        model="fake", system_prompt="", messages=[UserMessage(content=TEXT)], tools=(), options={}
    )
    first: float | None = None
    began = time.perf_counter()
    async for part in provider.stream(request):
        if first is None and isinstance(part, TextDelta):
            first = time.perf_counter() - began
    assert first is not None
    return first


def _first_token(running: Running) -> float:
    began = time.perf_counter()
    first: float | None = None
    turn = running.orchestrator.enqueue("talker", TEXT, stream=True)
    for event in turn.events(timeout=60):
        if first is None and event.type is EventType.DELTA:
            first = time.perf_counter() - began
    assert first is not None
    return first


def _cost_of_a_token(running: Running) -> float:
    """The cost of ten streams of a thousand tokens minus that of ten streams of ten tokens."""
    cost = {}
    for agent in ("talker", "teller"):
        before = running.cpu()
        running.run_all(agent, [f"{agent}-{number}" for number in range(10)], stream=True)
        cost[agent] = running.cpu() - before
    return (cost["teller"] - cost["talker"]) / (10 * 990)


def on_one_stack(servers: Servers, cases: Sequence[Callable[[Running], None]]) -> None:
    """Run cases one after the other on one stack."""
    with runtime(servers) as running:
        for case in cases:
            case(running)


def idle(
    results: Results, servers: Servers, *, workers: int, conversations: int, seconds: float
) -> None:
    """Measure idle workers while Redis holds idle conversations."""
    case = f"{workers} idle workers, {conversations:,} idle conversations"
    with runtime(servers, workers=workers) as running:
        size = _fill(running, conversations)
        commands, cpu = _commands(running.client), running.cpu()
        began = time.perf_counter()
        time.sleep(seconds)
        passed = time.perf_counter() - began
        commands, cpu = _commands(running.client) - commands, running.cpu() - cpu
        memory = usage((w.pid for w in running.stack.workers), children=False).memory / workers
    for name, unit, value in (
        ("Redis commands a second, a worker", "1/s", commands / passed / workers),
        ("processor time, a worker", "% of a core", cpu / passed / workers * 100),
        ("memory, a worker", "MiB", memory),
        ("Redis memory beyond its messages, a conversation", "bytes", size),
    ):
        results.add(Metric(case=case, name=name, unit=unit), "this runtime", value)


def _fill(running: Running, count: int) -> float:
    """Create idle conversations; returns Redis's bytes for each, without its messages.

    A turn creates the first one. The others are copies of its keys, with names of the same length.
    """
    first = f"user:{0:08d}"
    running.ask("plain", TEXT, first)
    keys = conversation_keys(first)
    assert running.client.exists(keys.inbox, keys.lease) == 0
    sizes = []
    for source in (keys.messages, keys.meta):
        before = _used(running.client)
        for start in range(1, count + 1, 5_000):
            pipeline = running.client.pipeline(transaction=False)
            for number in range(start, min(start + 5_000, count + 1)):
                pipeline.copy(source, source.replace(first, f"user:{number:08d}"))
            pipeline.execute()
        sizes.append((_used(running.client) - before) / count)
    return sizes[1]


def _used(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"])


def _commands(client: redis.Redis) -> int:
    """Number of commands that Redis has run, including those of scripts, without this query."""
    info: Any = client.info("commandstats")
    return sum(found["calls"] for name, found in info.items() if name != "cmdstat_info")
