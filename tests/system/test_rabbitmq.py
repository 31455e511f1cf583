"""RabbitMQ as the broker: real turns, and what happens to them when it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi.turns import EventType
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack
from tests.faults import until
from tests.system.rabbitmq import RabbitMQ

WAIT = 120.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="module")
def stack(broker: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=2,
        flower=False,
        broker_url=broker.url,
        concurrency=4,
        dispatch_grace=1,
        lease_ttl=3,
        heartbeat=1,
        redis_timeout=2,
    ) as running:
        yield running


@pytest.fixture
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    with Orchestrator(stack.settings) as producer:
        yield producer


def say(orchestrator: Orchestrator, name: str, count: int, message: str = "hi") -> list[TurnHandle]:
    return [
        orchestrator.enqueue("tools", message, conversation_id=f"{name}:{number}")
        for number in range(count)
    ]


def all_once(orchestrator: Orchestrator, handles: list[TurnHandle]) -> None:
    """Every turn has completed, and each message stands once in its history."""
    for handle in handles:
        handle.result(WAIT)
    for handle in handles:
        roles = Counter(message["role"] for message in orchestrator.history(handle.conversation_id))
        assert (roles["user"], roles["assistant"]) == (1, 1), handle.turn_id


def test_queues_are_quorum_queues(broker: RabbitMQ, stack: Stack) -> None:
    listed = broker.control("list_queues", "name", "type").splitlines()
    found = dict(line.split("\t") for line in listed if line.startswith("agentapi."))
    assert found == {f"agentapi.{number}": "quorum" for number in range(stack.settings.queues)}
    assert "celery_delayed" not in "".join(listed)


def test_turns_tools_streams_and_delegation(orchestrator: Orchestrator) -> None:
    all_once(orchestrator, say(orchestrator, "plain", 30))
    call = orchestrator.enqueue("tools", '/echo {"text": "order 8"}', conversation_id="call")
    assert call.result(WAIT).steps == 3
    streamed = orchestrator.enqueue("tools", "one two three", conversation_id="s", stream=True)
    kinds = [event.type for event in streamed.events(timeout=WAIT)]
    assert EventType.DELTA in kinds
    assert kinds[-1] is EventType.COMPLETED
    parent = orchestrator.enqueue(
        "tools", '/fan_out {"messages": ["a", "b"]}', conversation_id="parent"
    )
    assert parent.result(WAIT).text


def test_a_killed_worker_delays_its_turns_only(stack: Stack, orchestrator: Orchestrator) -> None:
    handles = say(orchestrator, "killed", 8, '/nap {"seconds": 1}')
    until(lambda: any(handle.info().started_at for handle in handles))
    lost = stack.workers.pop(0)
    os.kill(lost.pid, signal.SIGKILL)
    for handle in handles:
        handle.result(WAIT)
    lost.stop()
    stack.start_worker()
    stack.wait_for_workers(2)


def test_lost_messages_lose_no_turn(
    broker: RabbitMQ, stack: Stack, orchestrator: Orchestrator
) -> None:
    for worker in stack.workers:
        os.kill(worker.pid, signal.SIGSTOP)
    try:
        handles = say(orchestrator, "purged", 20)
        broker.purge([f"agentapi.{number}" for number in range(stack.settings.queues)])
    finally:
        for worker in stack.workers:
            os.kill(worker.pid, signal.SIGCONT)
    all_once(orchestrator, handles)


def test_cut_connections_lose_no_turn(broker: RabbitMQ, orchestrator: Orchestrator) -> None:
    handles = say(orchestrator, "cut-before", 10)
    broker.control("close_all_connections", "test")
    handles += say(orchestrator, "cut-after", 10)
    all_once(orchestrator, handles)


def test_a_killed_broker_loses_no_turn(broker: RabbitMQ, orchestrator: Orchestrator) -> None:
    handles = say(orchestrator, "away-before", 10)
    broker.kill()
    # Turns are accepted in Redis: a producer needs no broker.
    handles += say(orchestrator, "away", 10)
    broker.start()
    handles += say(orchestrator, "away-after", 10)
    all_once(orchestrator, handles)


def test_the_doctor_finds_no_fault(broker: RabbitMQ, stack: Stack) -> None:
    done = doctor(broker, stack)
    while '"queues.consumed"' not in done.stdout:
        # A busy worker may miss the question.
        done = doctor(broker, stack)
    found = json.loads(done.stdout)["findings"]
    # One agent of these has no key, for other tests.
    assert {each["code"] for each in found if each["level"] == "fail"} == {"providers.key"}
    assert {"broker.reachable", "queues.consumed"} <= {each["code"] for each in found}
    assert "guest:guest" not in done.stdout + done.stderr


def doctor(broker: RabbitMQ, stack: Stack) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "doctor", "--json"],
        env={
            **os.environ,
            "AGENTAPI_REDIS_URL": stack.redis_url,
            "AGENTAPI_BROKER_URL": broker.url,
            "AGENTAPI_AGENTS": "tests.acceptance.agents",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT,
    )


def test_a_password_is_never_printed(stack: Stack, tmp_path: Path) -> None:
    logs = [path.read_text() for path in (stack.folder / "logs").iterdir()]
    assert logs
    assert not [text for text in logs if "guest:guest" in text]
