"""Measures what a turn costs each part of a fleet, on real processes."""

from __future__ import annotations

import os
import platform
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil
import redis

from agentapi.ids import PARTITIONS, create_turn_id
from agentapi.redis.keys import conversation_keys, due_key, turn_keys
from agentapi.stores.answers import LONGEST_IN_LINE
from agentapi.stores.groups import SWEEP_GROUPS
from agentapi.turns import Turn
from benchmarks.archive_costs import archive_costs
from benchmarks.processes import server_cpu, usage
from benchmarks.running import Running
from orchestrator import Orchestrator, TurnHandle
from orchestrator.capacity import Costs
from orchestrator.stack import Child, Stack
from workers.app import create_app

TEXT: Final = "Where is my order?"
LOOK: Final = '/look {"what": "it"}'
WORDS: Final = 200

_MS: Final = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench(Running):
    """A stack with one worker, and the resources that its processes have used."""

    @property
    def worker(self) -> Child:
        """The only worker."""
        return self.stack.workers[0]

    def worker_cpu(self) -> float:
        """Seconds of the worker's processor time."""
        return usage([self.worker.pid], children=False).cpu

    def store_cpu(self) -> float:
        """Seconds of Valkey's processor time."""
        return server_cpu(self.client)

    def spread(
        self, agent: str, count: int, message: str, *, stream: bool = False
    ) -> list[TurnHandle]:
        """Enqueue turns, each in its own conversation."""
        names = (f"{agent}:{number}" for number in range(count))
        return self.enqueue(agent, names, message, stream=stream)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the worker process."""
        self.worker.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.worker.signal(signal.SIGCONT)

    def drain(
        self, agent: str, count: int, message: str, *, stream: bool = False
    ) -> tuple[float, float, list[Turn]]:
        """Enqueue turns while the worker is paused, then let it run them.

        Returns:
            Milliseconds of the worker's and of Valkey's processor time for each turn, and the
            turns.
        """
        with self.paused():
            handles = self.spread(agent, count, message, stream=stream)
            worker, store = self.worker_cpu(), self.store_cpu()
        self.wait(handles)
        used = self.worker_cpu() - worker, self.store_cpu() - store
        turns = [handle.info() for handle in handles]
        return used[0] * _MS / count, used[1] * _MS / count, turns


@contextmanager
def bench(**settings: Any) -> Iterator[Bench]:
    """Start a stack, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="capacity-") as folder:
        stack = Stack(
            Path(folder),
            agents=("benchmarks.agents",),
            workers=1,
            flower=False,
            log_level="WARNING",
            **settings,
        )
        with (
            stack,
            Orchestrator(stack.settings) as orchestrator,
            redis.Redis.from_url(stack.redis_url) as client,
        ):
            found = Bench(stack=stack, orchestrator=orchestrator, client=client)
            found.wait(found.spread("plain", 50, TEXT))
            yield found


def measure(turns: int) -> Costs:
    """Measure all costs."""
    piece = _piece_cost()
    with bench(gateway=True, gateway_requests_per_minute=0, gateway_turns_in_flight=0) as running:
        idle_mib = usage([running.worker.pid], children=False).memory
        plain, store, ended = running.drain("plain", turns, TEXT)
        step_worker, step_store, _ = running.drain("looker", turns, LOOK)
        wakeups = [_wakeup(running) for _ in range(turns // 10)]
        dispatch, store_dispatch = dispatch_cost(running, turns)
        sizes = _bytes(running, ended[-1])
        return Costs(
            measured_on=_machine(),
            worker_turn_ms=round(plain, 3),
            worker_step_ms=round(max(step_worker - plain, 0), 3),
            worker_piece_ms=round(piece[0], 4),
            store_enqueue_ms=round(_enqueue_cost(running, turns), 3),
            store_turn_ms=round(store, 3),
            store_step_ms=round(max(step_store - store, 0), 3),
            store_piece_ms=round(piece[1], 4),
            gateway_turn_ms=round(_gateway_cost(running, turns // 4), 3),
            wakeup_ms=round(statistics.median(wakeups) * _MS, 3),
            dispatch_ms=round(dispatch, 3),
            store_dispatch_ms=round(store_dispatch, 3),
            isolated_ms=round(max(_isolated_cost() - plain, 0), 1),
            worker_mib=round(idle_mib, 1),
            worker_slot_mib=_slot_memory(),
            **sizes,
            **archive_costs(),
        )


def _machine() -> str:
    cores = os.cpu_count()
    python = platform.python_version()
    today = datetime.now(UTC).date().isoformat()
    release = version("agentapi")
    return f"agentapi {release}, Python {python}, {platform.machine()}, {cores} cores, {today}"


def _wakeup(running: Bench) -> float:
    turn = running.orchestrator.enqueue("plain", TEXT)
    turn.result(60)
    info = turn.info()
    return (info.started_at or info.created_at) - info.created_at


def _enqueue_cost(running: Bench, turns: int) -> float:
    with running.paused():
        before = running.store_cpu()
        handles = running.spread("plain", turns, TEXT)
        used = running.store_cpu() - before
    running.wait(handles)
    return used * _MS / turns


def _gateway_cost(running: Bench, turns: int) -> float:
    gateway = running.stack.gateway
    assert gateway is not None
    body = {"model": "plain", "messages": [{"role": "user", "content": TEXT}]}
    with httpx2.Client(base_url=running.stack.gateway_url or "", timeout=60) as http:

        def ask(count: int) -> None:
            for _ in range(count):
                http.post("/v1/chat/completions", json=body).raise_for_status()

        ask(20)
        before = usage([gateway.pid]).cpu
        ask(turns)
        return (usage([gateway.pid]).cpu - before) * _MS / turns


def dispatch_cost(running: Bench, turns: int) -> tuple[float, float]:
    """Milliseconds of a sweeping worker and of Valkey for an overdue turn."""
    app = create_app(running.stack.settings, [])
    sweeper = app.runtime.sweeper
    with closing(app), closing(app.store), running.paused():
        # Wait until the paused worker no longer counts as alive.
        while len(sweeper.groups) < SWEEP_GROUPS:
            sweeper.sweep()
            time.sleep(0.1)
        handles = running.spread("plain", turns, TEXT)
        _make_overdue(running.client)
        sent, store, began = 0, running.store_cpu(), time.process_time()
        while sent < turns:
            sent += sweeper.sweep()
        used = time.process_time() - began, running.store_cpu() - store
    running.wait(handles)
    return used[0] * _MS / turns, used[1] * _MS / turns


def _make_overdue(client: redis.Redis) -> None:
    """Make turns overdue: set their deadlines further back than a wake-up may be queued."""
    late = (time.time() - 2 * LONGEST_IN_LINE) * _MS
    for partition in range(PARTITIONS):
        due: Any = client.zrange(due_key(partition), 0, -1)
        if due:
            client.zadd(due_key(partition), dict.fromkeys(due, late))


def _piece_cost(turns: int = 20) -> tuple[float, float]:
    """Milliseconds of the worker and of Valkey for a streamed word, at one word every 10 ms."""
    text = " ".join(["word"] * WORDS)
    with bench(env={"AGENTAPI_OFFLINE_CHUNK_DELAY": "0.01"}) as running:
        whole = running.drain("plain", turns, text)
        streamed = running.drain("plain", turns, text, stream=True)
        return (streamed[0] - whole[0]) / WORDS, (streamed[1] - whole[1]) / WORDS


def _isolated_cost(turns: int = 40) -> float:
    """Kill a worker; another one runs its turns in separate processes."""
    with bench(env={"AGENTAPI_OFFLINE_DELAY": "3"}) as running:
        heir = running.stack.start_worker()
        running.stack.wait_for_workers(2)
        handles = running.spread("plain", turns, TEXT)
        while any(handle.info().started_at is None for handle in handles):
            time.sleep(0.02)
        # Kill its watchdog too, as if the machine were lost, so that nobody hands the turns back.
        watchdogs = [process.pid for process in psutil.Process(running.worker.pid).children()]
        for pid in [*watchdogs, running.worker.pid]:
            os.kill(pid, signal.SIGKILL)
        running.wait(handles)
        taken = sum(handle.info().attempt > 1 for handle in handles)
        [watchdog] = psutil.Process(heir.pid).children()
        times = watchdog.cpu_times()
        return (times.children_user + times.children_system) * _MS / taken


def _slot_memory(turns: int = 500) -> float:
    """Memory of a turn in flight, in MiB."""
    with bench(concurrency=turns, env={"AGENTAPI_OFFLINE_DELAY": "8"}) as running:
        idle = usage([running.worker.pid], children=False).memory
        handles = running.spread("plain", turns, TEXT)
        while any(handle.info().started_at is None for handle in handles[-10:]):
            time.sleep(0.1)
        full = usage([running.worker.pid], children=False).memory
        running.wait(handles)
        return round(max(full - idle, 0) / turns, 4)


def _bytes(running: Bench, turn: Turn) -> dict[str, float]:
    """Bytes that a conversation and its newest turn occupy in Redis."""
    keys, own = conversation_keys(turn.conversation_id), turn_keys(turn.turn_id)
    client: Any = running.client
    messages = [bytes(each) for each in client.lrange(keys.messages, 0, -1)]
    stored = _size(client, keys.messages) - sum(map(len, messages))
    return {
        "conversation_bytes": float(_size(client, keys.meta)),
        "message_overhead_bytes": round(stored / len(messages), 1),
        # A completed turn's record refers to its messages in the history.
        "turn_bytes": float(_size(client, own.turn) + _list_entry(client)),
        "turn_message_factor": 0.0,
        "events_bytes": float(_size(client, own.events)),
    }


def _list_entry(client: Any, entries: int = 1000) -> int:
    """Bytes of a turn's entry in a long list; Redis stores a short one in another way."""
    key = "agentapi:benchmark:list"
    client.zadd(key, {create_turn_id("c"): 1000 * number for number in range(entries)})
    size = int(client.memory_usage(key, samples=0) or 0)
    client.delete(key)
    return round(size / entries)


def _size(client: Any, key: str) -> int:
    return int(client.memory_usage(key) or 0)
