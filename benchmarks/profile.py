"""Shows where a turn's processor time goes: ``python -m benchmarks.profile``.

Each part runs alone and repeatedly against a real Valkey; a real worker process gives the total.
The remainder is the hand-over between the threads and the agent loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import redis
import typer
from rich.console import Console
from rich.table import Table

from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    Usage,
    UserMessage,
    dumps,
)
from agentapi.conversation.window import Window
from agentapi.ids import create_turn_id
from agentapi.providers.base import ModelRequest
from agentapi.providers.openai.client import OpenAIProvider
from agentapi.redis.keys import conversation_keys
from agentapi.stores import Claim, Ending, Lease, NewEvent, RedisTurnStore, Wakeup
from agentapi.turns import EventType, ModelStep, NewTurn, TurnStatus
from benchmarks.contenders.turn import TEXT
from benchmarks.processes import server_cpu, usage
from orchestrator import Orchestrator
from orchestrator.broker import CeleryWakeups
from orchestrator.stack import Child, Stack
from orchestrator.stack.processes import free_port

ANSWER = AssistantMessage(content="It was shipped on Monday.")
CALL = AssistantMessage(content="", tool_calls=(ToolCall(id="1", name="look", arguments={}),))


@dataclass(kw_only=True)
class Profile:
    """Parts of a turn, in microseconds of processor time."""

    client: redis.Redis
    rows: list[tuple[str, float, float]] = field(default_factory=list)

    def part(self, name: str, count: int, work: Callable[[int], object]) -> None:
        """Repeat a call, and record what each run took in this process and in Valkey."""
        work(-1)
        server, here = server_cpu(self.client), time.process_time()
        for number in range(count):
            work(number)
        here = time.process_time() - here
        self.note(name, here / count, (server_cpu(self.client) - server) / count)

    @contextlib.contextmanager
    def process(self, name: str, count: int, pid: int) -> Iterator[None]:
        """Measure what another process uses during the block."""
        server, there = server_cpu(self.client), usage([pid], children=False).cpu
        yield
        there = usage([pid], children=False).cpu - there
        self.note(name, there / count, (server_cpu(self.client) - server) / count)

    def note(self, name: str, here: float, server: float) -> None:
        """Add a row; both values are in seconds."""
        self.rows.append((name, here * 1e6, server * 1e6))

    def of(self, name: str) -> float:
        """Microseconds of a row."""
        return next(here for found, here, _ in self.rows if found == name)


def main(turns: Annotated[int, typer.Option(help="Of each part.")] = 500) -> None:
    """Measure, and print the results."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(
            Path(folder),
            agents=("benchmarks.agents",),
            workers=1,
            flower=False,
            log_level="WARNING",
        )
        with stack, redis.Redis.from_url(stack.redis_url) as client:
            profile = Profile(client=client)
            store = RedisTurnStore(stack.settings)
            wakeups = CeleryWakeups(stack.settings)
            _whole(profile, stack, turns)
            _wake_only(profile, stack, wakeups, turns)
            for worker in stack.workers:
                worker.stop()
            _parts(profile, store, wakeups, turns)
            _provider(profile, Path(folder), turns)
            wakeups.close()
            store.close()
    _show(profile)


def _whole(profile: Profile, stack: Stack, turns: int) -> None:
    """Measure a turn in a worker, with a provider that does nothing."""
    with Orchestrator(stack.settings) as orchestrator:
        orchestrator.enqueue("plain", TEXT).result(60)
        with profile.process("a whole turn, worker process", turns, stack.workers[0].pid):
            handles = [orchestrator.enqueue("plain", TEXT) for _ in range(turns)]
            for handle in handles:
                handle.result(60)


def _wake_only(profile: Profile, stack: Stack, wakeups: CeleryWakeups, turns: int) -> None:
    """Measure wake-ups of turns that do not exist: Celery's part and a refused claim."""
    pid = stack.workers[0].pid
    found = [lost_wakeup(f"none-{number}") for number in range(turns)]
    before = _claims(profile.client)
    with profile.process("wake-up without a turn, worker process", turns, pid):
        wakeups.send(found)
        while _claims(profile.client) < before + turns:
            time.sleep(0.02)


def _claims(client: redis.Redis) -> int:
    """Number of scripts run so far. An idle worker adds one or two per second."""
    info: Any = client.info("commandstats")
    return int(info["cmdstat_evalsha"]["calls"])


def lost_wakeup(conversation_id: str) -> Wakeup:
    """A wake-up of a turn that does not exist."""
    turn_id = create_turn_id(conversation_id)
    return Wakeup(conversation_id=conversation_id, turn_id=turn_id, agent="plain")


def _parts(profile: Profile, store: RedisTurnStore, wakeups: CeleryWakeups, turns: int) -> None:
    new = [_new_turn(f"part-{number}") for number in range(-1, turns)]
    absent = [lost_wakeup(f"absent-{number}") for number in range(-1, turns)]
    claims: list[Claim] = []
    history: list[Message] = [UserMessage(content=TEXT), ANSWER]
    for turn in new:
        key = conversation_keys(turn.conversation_id).messages
        profile.client.rpush(key, *map(dumps, history * 10))

    def claim(number: int) -> None:
        turn = new[number + 1]
        found = _claim(store, turn.conversation_id, turn.turn_id)
        assert isinstance(found, Claim)
        claims.append(found)

    def refused(number: int) -> None:
        wakeup = absent[number + 1]
        _claim(store, wakeup.conversation_id, wakeup.turn_id)

    step = ModelStep(message=CALL, usage=Usage(input_tokens=9))
    delta = [NewEvent(type=EventType.DELTA, data={"text": "a few words "})]

    def lease(number: int) -> Lease:
        return claims[number + 1].lease

    profile.part("enqueue: the script", turns, lambda n: store.enqueue([new[n + 1]]))
    profile.part("enqueue: publish the wake-up", turns, lambda n: wakeups.send([absent[n + 1]]))
    profile.part("claim, refused", turns, refused)
    profile.part("claim, history of 20 messages", turns, claim)
    profile.part("emit one event", turns, lambda n: store.emit([(lease(n), 1, delta)]))
    profile.part("record a step", turns, lambda n: store.record(lease(n), 0, step))
    profile.part("commit", turns, lambda n: store.commit(lease(n), _ending()))


def _new_turn(conversation_id: str) -> NewTurn:
    turn_id = create_turn_id(conversation_id)
    return NewTurn(turn_id=turn_id, conversation_id=conversation_id, agent="plain", input=TEXT)


def _claim(store: RedisTurnStore, conversation_id: str, turn_id: str) -> object:
    return store.claim(
        conversation_id,
        turn_id,
        owner="profile",
        token=uuid.uuid4().hex,
        window=Window(messages=20),
    )


def _ending() -> Ending:
    return Ending(
        status=TurnStatus.COMPLETED,
        messages=(UserMessage(content=TEXT), ANSWER),
        usage=Usage(),
        steps=1,
    )


def _provider(profile: Profile, folder: Path, turns: int) -> None:
    """Measure the SDK against a local server: a complete answer, and a stream of ten tokens."""
    port = free_port()
    server = Child(
        "provider",
        [sys.executable, "-m", "benchmarks.provider", str(port), "0", "0", "10"],
        log=folder / "logs" / "provider.log",
    )
    history: list[Message] = [UserMessage(content=TEXT), ANSWER]
    request = ModelRequest(
        model="fake",
        system_prompt="You help.",
        messages=[*(history * 10), UserMessage(content=TEXT)],
        tools=(),
        options={},
    )
    try:
        with asyncio.Runner() as runner:
            url = f"http://127.0.0.1:{port}/v1"
            provider = OpenAIProvider(api_key="none", base_url=url, default_model="fake")

            async def stream() -> None:
                async for _ in provider.stream(request):
                    pass

            _wait_for(port)
            profile.part(
                "provider SDK, a whole answer",
                turns,
                lambda _: runner.run(provider.complete(request)),
            )
            profile.part("provider SDK, ten tokens streamed", turns, lambda _: runner.run(stream()))
            runner.run(provider.aclose())
    finally:
        server.stop()


def _wait_for(port: int, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.02)


def _show(profile: Profile) -> None:
    table = Table(title="Processor time of a turn's parts", title_justify="left")
    table.add_column("part")
    table.add_column("Python, µs", justify="right")
    table.add_column("Valkey, µs", justify="right")
    celery = profile.of("wake-up without a turn, worker process") - profile.of("claim, refused")
    known = profile.of("claim, history of 20 messages") + profile.of("commit") + celery
    rest = profile.of("a whole turn, worker process") - known
    derived = [
        ("Celery: receive, trace, events for Flower", celery),
        ("agent loop and its hop to the event loop: the rest", rest),
    ]
    for name, here, server in profile.rows:
        table.add_row(name, f"{here:,.0f}", f"{server:,.0f}")
    table.add_section()
    for name, here in derived:
        table.add_row(name, f"{here:,.0f}", "")
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
