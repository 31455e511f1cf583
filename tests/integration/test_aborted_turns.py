"""What cancelled and failed turns leave, and that every provider takes the next turn."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis

from agentapi import Agent, tool
from agentapi.conversation.messages import from_dict
from agentapi.conversation.window import DEFAULT_WINDOW
from agentapi.engine.tool_calls import UNKNOWN_OUTCOME
from agentapi.errors import ToolServerUnavailable
from agentapi.providers import ModelRequest
from agentapi.providers.gemini.client import GeminiProvider
from agentapi.providers.openai.client import OpenAIProvider
from agentapi.redis.keys import turn_keys
from agentapi.stores import Claim
from agentapi.tools.base import BaseTool
from agentapi.turns import EventType, Turn, TurnStatus
from orchestrator import CancelOutcome
from tests.fakes import chat, gemini
from tests.fakes.server import serving
from tests.faults import a_minute_passes, until
from tests.integration.fleet import Busy, Fleet, run_in_thread

MakeFleet = Callable[..., Fleet]
NAP = '/nap {"seconds": 100}'


def roles(history: list[dict[str, Any]]) -> list[str]:
    return [message["role"] for message in history]


async def assert_providers_accept(history: list[dict[str, Any]]) -> None:
    """Send the history with a next message through both SDKs, and check it as the servers do."""
    messages = [from_dict(message) for message in [*history, {"role": "user", "content": "on"}]]
    request = ModelRequest(model="m", system_prompt="s", messages=messages)
    async with serving() as server:
        server.will(chat.reply("ok"), gemini.reply({"text": "ok"}))
        openai = OpenAIProvider(api_key="k", base_url=f"{server.url}/v1", timeout=60)
        google = GeminiProvider(api_key="k", base_url=server.url, timeout=60)
        await openai.complete(request)
        await google.complete(request)
        await openai.aclose()
        await google.aclose()
    sent, contents = server.requests[0]["messages"], server.requests[1]["contents"]
    open_calls: set[str] = set()
    for message in sent:
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, f"{message['role']} before the results of {open_calls}"
        open_calls = {call["id"] for call in message.get("tool_calls", ())}
    for content, following in itertools.pairwise(contents):
        calls = [part for part in content["parts"] if "functionCall" in part]
        answers = [part for part in following["parts"] if "functionResponse" in part]
        assert len(calls) == len(answers)


async def test_a_cancelled_turn_keeps_what_it_did(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(heartbeat=0.1)
    turn = fleet.enqueue("napper", NAP, conversation_id="c", on_abort="keep")
    thread, results = run_in_thread(fleet, turn)
    assert fleet.producer.cancel(turn.turn_id) is CancelOutcome.REQUESTED
    thread.join(60)
    assert results[0]["status"] == "cancelled"
    history = fleet.producer.history("c")
    assert roles(history) == ["user", "assistant", "tool"]
    assert "ended before it finished" in history[2]["content"]
    await assert_providers_accept(history)
    following = fleet.enqueue("napper", "What did I say?", conversation_id="c")
    assert fleet.execute(following)["status"] == "completed"
    assert "/nap" in (fleet.turn(following).text or "")


def test_an_interrupted_turn_keeps_and_a_replaced_one_drops(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(heartbeat=0.1)
    for on_busy, left in (("interrupt", 3), ("replace", 0)):
        turn = fleet.enqueue("napper", NAP, conversation_id=on_busy)
        thread, results = run_in_thread(fleet, turn)
        newer = fleet.enqueue("napper", "stop that", conversation_id=on_busy, on_busy=on_busy)
        thread.join(60)
        assert results[0]["status"] == "cancelled"
        assert len(fleet.producer.history(on_busy)) == left
        assert fleet.sent[-1].turn_id == newer.turn_id
        assert fleet.execute(newer)["status"] == "completed"


def test_an_interrupted_turn_that_had_not_begun_leaves_its_message(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    turn = fleet.enqueue("napper", "first", conversation_id="c")
    newer = fleet.enqueue("napper", "second", conversation_id="c", on_busy="interrupt")
    assert fleet.execute(turn)["status"] == "cancelled"
    assert fleet.execute(newer)["status"] == "completed"
    assert [m["content"] for m in fleet.producer.history("c")] == [
        "first",
        "second",
        "You said: second",
    ]


@pytest.mark.parametrize(
    ("settings", "code"), [({"turn_timeout": 2}, "deadline"), ({"max_attempts": 1}, "poison")]
)
async def test_failures_keep_a_valid_history(
    make_fleet: MakeFleet, settings: dict[str, Any], code: str
) -> None:
    fleet = make_fleet(lease_ttl=0.2, heartbeat=60, on_abort="keep", **settings)
    turn = fleet.enqueue("napper", NAP, conversation_id="c")
    if code == "poison":
        thread, _ = run_in_thread(fleet, turn)
        assert fleet.app.store.perish("c", turn.turn_id, fleet.app.runtime.process)
        other = make_fleet(**settings)
        assert other.execute(turn)["error"] == code
        fleet.app.runtime.shutdown.hand_back()
        thread.join(60)
    else:
        assert fleet.execute(turn)["error"] == code
    history = fleet.producer.history("c")
    assert roles(history) == ["user", "assistant", "tool"]
    await assert_providers_accept(history)


def test_a_long_wait_for_the_provider_frees_the_thread(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(park_after=0.1)
    Busy.waits.extend([0.0, 60])
    turn = fleet.enqueue("busy", "hi")
    behind = fleet.enqueue("busy", "there", conversation_id=turn.conversation_id)
    started = time.monotonic()
    parked = fleet.execute(turn)
    assert (parked["status"], parked["attempt"]) == ("parked", 1)
    assert 60 <= parked["seconds"] <= 75
    assert time.monotonic() - started < 60
    assert fleet.turn(turn).status is TurnStatus.PARKED
    assert fleet.execute(turn)["status"] == "parked"
    assert fleet.execute(behind)["status"] == "queued"
    a_minute_passes(fleet.app.settings.redis_url)
    fleet.app.runtime._gate.look()
    assert turn.conversation_id in fleet.app.store.overdue()
    assert fleet.execute(turn)["status"] == "completed"
    kinds = [e.type for e in fleet.app.store.events({turn.turn_id: -1}, 0)[turn.turn_id]]
    assert kinds == [
        EventType.STARTED,
        EventType.PARKED,
        EventType.STARTED,
        EventType.COMPLETED,
    ]


def until_overdue(fleet: Fleet, turn: Turn) -> None:
    until(lambda: turn.conversation_id in fleet.app.store.overdue())


def test_parked_turns_do_not_retry_for_ever_and_are_no_poison(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(park_after=0, provider_max_retries=2, provider_patience=3, max_attempts=1)
    Busy.waits.extend([0.01] * 4)
    turn = fleet.enqueue("busy", "hi")
    for _ in range(3):
        assert fleet.execute(turn)["status"] == "parked"
        until_overdue(fleet, turn)
    assert fleet.execute(turn)["error"] == "provider_unavailable"
    ended = fleet.turn(turn)
    # Two quick repeats, and one when the patience is over.
    assert ended.parks == 3
    assert ended.error is not None
    assert "tried 4 times" in ended.error.message
    assert "busy" in ended.error.message


def test_the_patience_of_a_turn_survives_its_workers(make_fleet: MakeFleet) -> None:
    patient = {"park_after": 0, "provider_max_retries": 0, "provider_patience": 1.0}
    one, two = make_fleet(**patient), make_fleet(**patient)
    Busy.waits.extend([0.01] * 3)
    turn = one.enqueue("busy", "hi")
    assert one.execute(turn)["status"] == "parked"
    waits = one.turn(turn).waiting_for
    assert waits is not None
    assert waits.names == ("moody",)
    until_overdue(two, turn)
    assert two.execute(turn)["error"] == "provider_unavailable"


def test_a_deadline_that_passes_meanwhile_says_what_was_waited_for(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(park_after=0, provider_max_retries=0)
    Busy.waits.append(300)
    turn = fleet.enqueue("busy", "hi", deadline=200)
    assert fleet.execute(turn)["status"] == "parked"
    with redis.Redis.from_url(fleet.app.settings.redis_url) as client:
        key = turn_keys(turn.turn_id).turn
        # It was to be tried again after its deadline: so that is when it wakes.
        assert client.hget(key, "wake") == client.hget(key, "deadline")
        client.hset(key, mapping={"wake": 1, "deadline": 1})
    assert fleet.execute(turn)["error"] == "deadline"
    error = fleet.turn(turn).error
    assert error is not None
    assert "it waited for moody" in error.message
    assert "1 failure" in error.message


def test_a_failed_turn_runs_again_from_its_last_step(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(provider_max_retries=0, provider_patience=0)
    Busy.waits.extend([None, 0.0])
    turn = fleet.enqueue("busy", '/nap {"seconds": 0}')
    assert fleet.execute(turn)["error"] == "provider_unavailable"
    assert fleet.turn(turn).steps == 2
    # What was said is in the history, and a retry moves it to the end.
    assert roles(fleet.producer.history(turn.conversation_id)) == ["user", "assistant", "tool"]
    handle = fleet.producer.turn(turn.turn_id)
    handle.retry()
    assert fleet.producer.history(turn.conversation_id) == []
    assert handle.status() is TurnStatus.QUEUED
    assert fleet.execute(turn)["status"] == "completed"
    assert "rested" in handle.result(timeout=5).text
    history = fleet.producer.history(turn.conversation_id)
    assert roles(history) == ["user", "assistant", "tool", "assistant"]
    kinds = [event.type.value for event in handle.events(timeout=5)]
    assert kinds.count("step") == 2
    assert kinds[-1] == "completed"


def test_a_cancelled_parked_turn_never_wakes(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(park_after=0.1)
    Busy.waits.append(60)
    turn = fleet.enqueue("busy", "hi")
    assert fleet.execute(turn)["status"] == "parked"
    assert fleet.producer.cancel(turn.turn_id) is CancelOutcome.CANCELLED
    assert fleet.execute(turn)["status"] == "cancelled"


class Shelf:
    """A server of tools that is away when it is asked for the second time."""

    name = "shelf"

    def __init__(self) -> None:
        self.asked = 0
        self.read: list[str] = []

    async def tools(self) -> Sequence[BaseTool]:
        self.asked += 1
        if self.asked == 2:
            raise ToolServerUnavailable("it is away", server=self.name, retry_after=0.01)

        @tool
        def read(title: str) -> str:
            """Read a book."""
            self.read.append(title)
            return f"{title} is read"

        return [read]


def test_calls_of_a_turn_that_parked_before_it_made_them_are_made(make_fleet: MakeFleet) -> None:
    """The tool need not be idempotent: nobody has begun the call."""
    shelf = Shelf()
    agent = Agent(name="reader", provider="offline", tools=[shelf])
    fleet = make_fleet(agents=[agent], park_after=0, provider_max_retries=0, provider_patience=1.0)
    turn = fleet.enqueue("reader", '/read {"title": "Emma"}')
    assert fleet.execute(turn)["status"] == "parked"
    assert fleet.turn(turn).steps == 1
    until_overdue(fleet, turn)
    assert fleet.execute(turn)["status"] == "completed"
    assert fleet.turn(turn).text == "read: Emma is read"
    assert shelf.read == ["Emma"]


def test_a_lost_worker_leaves_calls_of_unknown_outcome(make_fleet: MakeFleet) -> None:
    """Also if the turn was parked at another time."""
    shelf = Shelf()
    agent = Agent(name="reader", provider="offline", tools=[shelf])
    fleet = make_fleet(agents=[agent], park_after=0, provider_max_retries=0, provider_patience=1.0)
    turn = fleet.enqueue("reader", '/read {"title": "Emma"}')
    assert fleet.execute(turn)["status"] == "parked"
    until_overdue(fleet, turn)
    store = fleet.app.store
    lost = store.claim(
        turn.conversation_id, turn.turn_id, owner="lost", token="t", window=DEFAULT_WINDOW
    )
    assert isinstance(lost, Claim)
    # It handed the turn back in the middle of the call, as far as anybody knows.
    store.release(lost.lease)
    assert fleet.execute(turn)["status"] == "completed"
    assert UNKNOWN_OUTCOME in (fleet.turn(turn).text or "")
    assert shelf.read == []
