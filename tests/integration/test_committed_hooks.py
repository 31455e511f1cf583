"""`Hooks.on_turn_committed`: told of every end, after it was stored, whoever stored it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from agentapi import Agent, Hooks, Settings, Turn
from agentapi.logs import LogLine
from agentapi.stores import Errand, ErrandKind
from orchestrator import Orchestrator
from tests.faults import until
from tests.integration.fleet import Fleet


class Told(Hooks):
    """Remembers what it was told."""

    def __init__(self, failures: int = 0) -> None:
        self.ends: list[tuple[str, str, str]] = []
        self.failures = failures
        self.changed = threading.Condition()

    async def on_turn_committed(self, turn: Turn, end_id: str) -> None:
        with self.changed:
            self.ends.append((end_id, turn.status.value, turn.input))
            self.changed.notify_all()
        if len(self.ends) <= self.failures:
            raise ValueError("what users said")

    def wait(self, count: int) -> list[tuple[str, str, str]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.ends) >= count, timeout=60)
            return list(self.ends)


class ToldInAThread(Told):
    """A hook that blocks."""

    def on_turn_committed(self, turn: Turn, end_id: str) -> Any:
        return asyncio.run(super().on_turn_committed(turn, end_id))


def keys(fleet: Fleet, pattern: str) -> list[bytes]:
    client = redis.Redis.from_url(fleet.app.settings.redis_url)
    return list(client.scan_iter(f"agentapi:*:{pattern}", count=10_000))


@pytest.mark.parametrize("kind", [Told, ToldInAThread])
def test_each_kind_of_end(make_fleet: Callable[..., Fleet], kind: type[Told]) -> None:
    hooks = kind()
    agents = [
        Agent(name="good", provider="offline", hooks=[hooks]),
        Agent(name="broken", provider="broken", hooks=[hooks]),
    ]
    fleet = make_fleet(agents=agents, sweep_interval=0.05)
    done = fleet.enqueue("good", "hi")
    fleet.execute(done)
    assert hooks.wait(1) == [(f"{done.turn_id}:{fleet.turn(done).last_event}", "completed", "hi")]
    failed = fleet.enqueue("broken", "hi")
    fleet.execute(failed)
    assert hooks.wait(2)[1][1] == "failed"
    # Ended by a producer, without any worker.
    cancelled = fleet.enqueue("good", "hi")
    fleet.producer.cancel(cancelled.turn_id)
    end_id, status, _ = hooks.wait(3)[2]
    assert (end_id.partition(":")[0], status) == (cancelled.turn_id, "cancelled")
    fleet.producer.retry(failed.turn_id)
    fleet.producer.cancel(failed.turn_id)
    again = hooks.wait(4)[3]
    assert again[0].partition(":")[0] == failed.turn_id
    assert again[0] != hooks.ends[1][0]
    until(lambda: keys(fleet, "untold") == [])
    assert len(hooks.ends) == 4


def test_a_worker_that_dies_after_the_commit(make_fleet: Callable[..., Fleet]) -> None:
    never = Told()
    dead = make_fleet(agents=[Agent(name="good", provider="offline", hooks=[never])])
    dead.app.runtime._hooks.stop()
    turn = dead.enqueue("good", "hi")
    dead.execute(turn)
    assert keys(dead, "untold") != []
    hooks = Told()
    make_fleet(agents=[Agent(name="good", provider="offline", hooks=[hooks])], sweep_interval=0.05)
    assert [end[2] for end in hooks.wait(1)] == ["hi"]
    assert never.ends == []


def test_a_worker_without_the_agent_leaves_the_end_to_others(
    make_fleet: Callable[..., Fleet],
) -> None:
    hooks, others = Told(), Told()
    first = make_fleet(agents=[Agent(name="good", provider="offline", hooks=[hooks])])
    first.app.runtime._hooks.stop()
    turn = first.enqueue("good", "hi")
    first.execute(turn)
    second = make_fleet(
        agents=[Agent(name="other", provider="offline", hooks=[others])], sweep_interval=0.02
    )
    mine = second.enqueue("other", "hi")
    second.execute(mine)
    others.wait(1)
    assert keys(second, "untold") != []
    make_fleet(agents=[Agent(name="good", provider="offline", hooks=[hooks])], sweep_interval=0.05)
    hooks.wait(1)
    assert len(others.ends) == 1


def test_a_hook_that_fails_is_called_again(
    make_fleet: Callable[..., Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    hooks, steady = Told(failures=1), Told()
    agent = Agent(name="good", provider="offline", hooks=[hooks, steady])
    fleet = make_fleet(agents=[agent], sweep_interval=0.05)
    with caplog.at_level(logging.WARNING, logger="agentapi.hooks"):
        fleet.execute(fleet.enqueue("good", "hi"))
        first, second = hooks.wait(2)
    assert first == second
    # It is called behind the one that failed.
    assert steady.wait(2) == [first, second]
    [said] = [record.msg for record in caplog.records if record.name == "agentapi.hooks"]
    assert isinstance(said, LogLine)
    assert (said.name, said.fields["error"], said.fields["agent"]) == (
        "hook.failed",
        "ValueError",
        "good",
    )
    assert "users said" not in str(said)


def test_agents_without_such_a_hook_cost_nothing(make_fleet: Callable[..., Fleet]) -> None:
    class Others(Hooks):
        def on_turn_end(self, context: Any, result: Any) -> None:
            pass

    before = set(threading.enumerate())
    fleet = make_fleet(agents=[Agent(name="good", provider="offline", hooks=[Others()])])
    fleet.execute(fleet.enqueue("good", "hi"))
    assert keys(fleet, "untold") == keys(fleet, "hooked:*") == []
    started = {thread.name for thread in threading.enumerate() if thread not in before}
    assert "agentapi-hooks" not in started


def test_eager_mode_calls_hooks_before_enqueue_returns() -> None:
    hooks = Told(failures=0)
    with Orchestrator.eager(agents=[Agent(name="good", provider="offline", hooks=[hooks])]) as made:
        for number in range(3):
            made.enqueue("good", f"{number}")
            assert [end[2] for end in hooks.ends] == [str(n) for n in range(number + 1)]


def test_a_hook_may_enqueue_a_turn(settings_for: Callable[..., Settings]) -> None:
    made: list[Orchestrator] = []

    class Again(Hooks):
        def on_turn_committed(self, turn: Turn, end_id: str) -> None:
            if turn.input != "last":
                made[0].enqueue("good", "last", idempotency_key=end_id)

    with Orchestrator.eager(
        agents=[Agent(name="good", provider="offline", hooks=[Again()])]
    ) as eager:
        made.append(eager)
        eager.enqueue("good", "first")
        assert sorted(turn.status.value for turn in eager.turns()) == ["completed", "completed"]


def test_a_failure_is_logged_with_what_to_do(
    make_fleet: Callable[..., Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet(agents=[Agent(name="broken", provider="broken")])
    with caplog.at_level(logging.WARNING, logger="agentapi"):
        turn = fleet.enqueue("broken", "what users said")
        fleet.execute(turn)
        kept = fleet.enqueue("broken", "what users said", on_abort="keep")
        fleet.execute(kept)
        late = fleet.enqueue("broken", "what users said", deadline=0.001)
        time.sleep(0.01)
        fleet.app.runtime._errands.carry_out(
            Errand(kind=ErrandKind.EXPIRE, turn_id=late.turn_id, partition=int(late.turn_id[:3]))
        )
    said = [r.msg for r in caplog.records if getattr(r.msg, "name", "") == "turn.failed"]
    assert [line.fields.get("retry_with") for line in said if isinstance(line, LogLine)] == [
        f"agentapi retry {turn.turn_id}",
        f"agentapi retry {kept.turn_id}",
        f"agentapi retry {late.turn_id}",
    ]
    assert "users said" not in caplog.text
    first = said[0]
    assert isinstance(first, LogLine)
    assert str(first).startswith("turn.failed conversation_id=")
    assert f'retry_with="agentapi retry {turn.turn_id}"' in str(first)
