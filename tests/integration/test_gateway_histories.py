"""Long conversations through the gateway: read, forked and deleted in steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    AttachmentKind,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
    dumps,
)
from agentapi.errors import InvalidInput
from agentapi.ids import create_turn_id
from agentapi.redis.keys import conversation_keys, turn_keys
from orchestrator.gateway.conversations import deletion
from orchestrator.gateway.conversations.forks import Continuation, continue_turn
from orchestrator.gateway.conversations.history import PIECE_BYTES, SCAN_BYTES, SCAN_MESSAGES
from orchestrator.gateway.http.errors import Conflict, InvalidRequest, NotFound, RateLimited
from orchestrator.gateway.openai.items import items_of, page
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.turn_submission import Existing, NewMessage, accept
from orchestrator.gateway.view import TenantView

Make = Callable[..., GatewaySettings]
INTERNAL = "gw:t:c"


@pytest.fixture
async def view(gateway_settings_for: Make) -> AsyncIterator[TenantView]:
    async with opened(gateway_settings_for()) as made:
        yield made


@asynccontextmanager
async def opened(settings: GatewaySettings) -> AsyncIterator[TenantView]:
    gateway = Gateway(settings)
    try:
        yield TenantView(gateway, "t")
    finally:
        await gateway.aclose()


def server(view: TenantView) -> redis.Redis:
    return redis.Redis.from_url(view.gateway.settings.redis_url)


def history_of(turns: int) -> list[Message]:
    """Turns, every third with a tool call; items put in by hand; and what an agent said alone."""
    made: list[Message] = [
        UserMessage(content="by hand", turn_id=f"item-{'a' * 32}"),
        UserMessage(content="of old"),
        AssistantMessage(content="", tool_calls=(ToolCall(id="x", name="look", arguments={}),)),
        ToolMessage(call_id="x", name="look", content="seen"),
        AssistantMessage(content="I looked"),
        UserMessage(content="of old again"),
    ]
    for number in range(turns):
        turn_id = create_turn_id(INTERNAL, str(number))
        made.append(UserMessage(content=f"question {number} " + "x" * 300, turn_id=turn_id))
        if number % 3 == 0:
            call = ToolCall(id=f"call{number}", name="look", arguments={"turn_id": "no"})
            made.append(AssistantMessage(content="let me", tool_calls=(call,), turn_id=turn_id))
            made.append(ToolMessage(call_id=call.id, name="look", content="there", turn_id=turn_id))
        made.append(AssistantMessage(content=f"answer {number}", turn_id=turn_id))
    return made


async def filled(view: TenantView, messages: Sequence[Message]) -> None:
    await view.open("c", make=True, operation="fill", messages=messages)


async def listed(view: TenantView, order: str, limit: int) -> list[dict[str, Any]]:
    after, found = None, []
    while True:
        answer = await view.items("c").page(after=after, limit=limit, order=order)
        found += answer["data"]
        if not answer["has_more"]:
            return found
        assert len(answer["data"]) == limit
        after = answer["last_id"]


@pytest.mark.parametrize("turns", [0, 1, 150])
async def test_pages_of_items_are_those_of_the_whole(view: TenantView, turns: int) -> None:
    messages = history_of(turns)
    await filled(view, messages)
    whole = [found.item for found in items_of(messages)]
    for order in ("asc", "desc"):
        expected = page(whole, after=None, limit=10_000, order=order)["data"]
        for limit in (1, 7, 100) if turns < 100 else (37,):
            assert await listed(view, order, limit) == expected
            # Another process has never seen these items.
            view.gateway.positions._known.clear()
    for item in whole[::5]:
        found = await view.items("c").find(item["id"])
        assert found is not None
        assert found.item.item == item
    for nothing in (
        "msg_none_u",
        "",
        "msg_at999_u",
        whole[0]["id"] + "0",
        "msg_" + "9" * 35 + "_u",
    ):
        assert await view.items("c").find(nothing) is None
    with pytest.raises(InvalidRequest, match="there is no item"):
        await view.items("c").page(after="msg_none", limit=3, order="asc")


async def test_a_page_of_large_items_is_short(view: TenantView) -> None:
    turn_id = create_turn_id(INTERNAL, "large")
    await filled(
        view,
        [UserMessage(content=str(n) + "x" * 1_000_000, turn_id=f"{turn_id}") for n in range(12)],
    )
    answer = await view.items("c").page(after=None, limit=100, order="asc")
    assert answer["has_more"]
    assert len(answer["data"]) == 5
    found = await view.history("c").messages(0, 1000, 1_048_576)
    assert found is not None
    assert (found[0], len(found[1])) == (12, 2)


async def test_a_message_is_removed_where_it_is(view: TenantView) -> None:
    messages = history_of(40)
    await filled(view, messages)
    with server(view) as client:
        meta = conversation_keys(INTERNAL).meta
        client.hset(meta, mapping={"covered": 50, "summary": "s"})
        keys = [message.turn_id for message in messages]
        for at in (100, 20):
            message = messages[at]
            expected = [dumps(other) for other in messages if other is not message]
            item = next(f for f in items_of(messages) if f.message is message)
            found = await view.items("c").find(item.id)
            assert found is not None
            assert await view.remove("c", found)
            stored = client.lrange(conversation_keys(INTERNAL).messages, 0, -1)
            assert stored == expected
            # It is where it was no more.
            assert not await view.remove("c", found)
            messages = [other for other in messages if other is not message]
        # A summary counts messages: one that it covered is gone.
        assert client.hget(meta, "covered") == b"49"
        assert len(keys) == len(messages) + 2


async def test_a_long_history_is_read_and_deleted_in_small_steps(
    view: TenantView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps everybody else has a turn; no step is larger than what it may be."""
    messages = history_of(100)
    await filled(view, messages[:1])
    keys = conversation_keys(INTERNAL)
    with server(view) as client:
        pipeline = client.pipeline(transaction=False)
        for _ in range(80):
            pipeline.rpush(keys.messages, *map(dumps, messages))
        pipeline.execute()
        total, size = client.llen(keys.messages), client.memory_usage(keys.messages) or 0
    steps: list[tuple[str, int]] = []
    scripts = view.gateway.conversations._scripts
    call = scripts.call

    async def counted(name: str, *args: Any) -> Any:
        reply = await call(name, *args)
        found = reply if isinstance(reply, list) else [reply]
        steps.append((name, sum(len(part) for part in found if isinstance(part, bytes))))
        return reply

    monkeypatch.setattr(scripts, "call", counted)
    assert await view.items("c").find(f"msg_item{'b' * 32}_u") is None
    assert [name for name, _ in steps] == ["seek"] * len(steps)
    assert total / SCAN_MESSAGES <= len(steps) <= size / SCAN_BYTES + total / SCAN_MESSAGES + 2
    steps.clear()
    answer = await view.items("c").page(after=None, limit=10, order="desc")
    assert len(answer["data"]) == 10
    # Ten items need no more than the newest messages.
    assert sum(read for _, read in steps) < 100_000
    assert await view.items("c").find(answer["last_id"]) is not None
    steps.clear()
    async for _ in view.history("c").up(0):
        pass
    assert max(read for _, read in steps) < PIECE_BYTES + 1_000
    assert len(steps) > size / PIECE_BYTES / 2
    steps.clear()
    await deletion.delete_conversation(view, "c")
    assert [name for name, _ in steps] == ["drop"] + ["wipe"] * (len(steps) - 1)
    assert len(steps) - 1 >= total / 200
    assert max(read for _, read in steps) < 1_000
    with server(view) as client:
        assert client.keys("agentapi:{*}:c:*") == []


async def ended_turn(view: TenantView, key: str, said: str = "hi") -> str:
    """A turn that is completed in the history, without a worker."""
    turn_id = await accept(
        view, NewMessage(agent="a", text=said, idempotency_key=key), Existing(conversation_id="c")
    )
    end(view, turn_id, said)
    return turn_id


def end(view: TenantView, turn_id: str, said: str) -> None:
    keys = conversation_keys(INTERNAL)
    with server(view) as client:
        client.hset(turn_keys(turn_id).turn, mapping={"status": "completed", "ended": 1})
        client.lrem(keys.inbox, 0, turn_id)
        client.rpush(keys.messages, dumps(UserMessage(content=said, turn_id=turn_id)))
        client.rpush(keys.messages, dumps(AssistantMessage(content="yes", turn_id=turn_id)))


async def test_a_fork_is_a_copy_made_in_redis(view: TenantView) -> None:
    await filled(view, history_of(200))
    first = await ended_turn(view, "1")
    second = await ended_turn(view, "2")
    keys = conversation_keys(INTERNAL)
    attached = Attachment(kind=AttachmentKind.IMAGE, blob="b" * 64, size=5, media_type="image/png")
    with server(view) as client:
        # The message is not turn's; its bytes go with it all the same.
        image = UserMessage(content="see", attachments=(attached,), turn_id=f"item-{'c' * 32}")
        client.linsert(keys.messages, "BEFORE", client.lindex(keys.messages, 0) or "", dumps(image))
        client.hset(keys.blobs, "b" * 64, b"bytes")
        plan = await continue_turn(view, first, "op")
        assert isinstance(plan, Continuation)
        assert plan.conversation_id != "c"
        assert client.exists(conversation_keys(view.internal(plan.conversation_id)).meta) == 0
        copy = conversation_keys(view.internal(plan.conversation_id))
        for _ in range(2):
            # A repeat copies nothing twice.
            assert await plan.make(view) is plan
            assert client.lrange(copy.messages, 0, -1) == client.lrange(keys.messages, 0, -3)
        assert client.hgetall(copy.blobs) == {b"b" * 64: b"bytes"}
        assert client.pttl(copy.messages) > 0
        assert plan.bytes > client.memory_usage(copy.messages) * 0.8
        here = await continue_turn(view, second, "op2")
        assert here.conversation_id == "c"
        assert await here.make(view) is here
        # The second that continues it finds out when it would.
        other = await continue_turn(view, second, "op3")
        assert other.conversation_id != "c"
        client.lset(keys.messages, -3, dumps(UserMessage(content="changed", turn_id=first)))
        with pytest.raises(Conflict):
            await Continuation(
                turn=plan.turn,
                operation="op4",
                conversation_id="conv_other",
                place=plan.place,
            ).make(view)


async def test_of_two_plans_to_continue_one_becomes_a_fork(view: TenantView) -> None:
    turn_id = await ended_turn(view, "1")
    plans = [await continue_turn(view, turn_id, f"op{n}") for n in range(3)]
    assert [plan.conversation_id for plan in plans] == ["c"] * 3
    made = [await plan.make(view) for plan in plans]
    assert [plan is done for plan, done in zip(plans, made, strict=True)] == [True, False, False]
    assert len({done.conversation_id for done in made}) == 3
    turns = [
        await accept(view, NewMessage(agent="a", text="x", idempotency_key=plan.operation), plan)
        for plan in plans
    ]
    stored = [(await view.turn(made_turn)).conversation_id for made_turn in turns]
    assert stored == [view.internal(done.conversation_id) for done in made]


async def test_a_fork_that_is_too_large_is_refused(gateway_settings_for: Make) -> None:
    async with opened(gateway_settings_for(gateway_fork_bytes=10_000)) as view:
        turn_id = await ended_turn(view, "1", "x" * 11_000)
        await ended_turn(view, "2")
        with pytest.raises(InvalidRequest, match="AGENTAPI_GATEWAY_FORK_BYTES") as caught:
            await continue_turn(view, turn_id, "op")
        assert caught.value.shown_code == "fork_too_large"


async def stored(view: TenantView) -> int:
    with server(view) as client:
        return int(client.hget("agentapi:gateway:{t}:stored", "total") or 0)


async def test_bytes_are_counted_and_counted_no_more(gateway_settings_for: Make) -> None:
    async with opened(gateway_settings_for(gateway_stored_bytes=50_000)) as view:
        said = [UserMessage(content="x" * 10_000, turn_id=f"item-{'a' * 32}")]
        await view.append("c", said, make=True)
        assert 10_000 < await stored(view) < 12_000
        with pytest.raises(NotFound):
            await view.append("none", said, make=False)
        assert await stored(view) < 12_000
        turn_id = await ended_turn(view, "1", "y" * 10_000)
        # Once in the history, once in the turn.
        assert 30_000 < await stored(view) < 33_000
        message = NewMessage(agent="a", text="z" * 10_000, idempotency_key="2")
        before = await stored(view)
        with pytest.raises(RateLimited) as caught:
            await accept(view, message, Existing(conversation_id="d"))
        assert caught.value.shown_code == "stored_bytes_exceeded"
        with pytest.raises(RateLimited):
            await view.append("d", said * 2, make=True)
        # A repeat of what was accepted is not counted again, one that is refused not at all.
        assert (
            await accept(
                view,
                NewMessage(agent="a", text="y" * 10_000, idempotency_key="1"),
                Existing(conversation_id="c"),
            )
            == turn_id
        )
        assert await stored(view) == before
        await deletion.delete_conversation(view, "c")
        assert await stored(view) == 0
        await accept(view, message, Existing(conversation_id="d"))


async def test_what_expired_is_counted_no_more(gateway_settings_for: Make) -> None:
    async with opened(gateway_settings_for(gateway_stored_bytes=50_000)) as view:
        ledger = view.gateway.ledger
        for number in range(4):
            await ledger.charge("t", f"gw:t:{number}", 10_000)
        await view.open("0", make=True, metadata={"a": "b" * 500})
        # What is just being written is not looked at.
        with pytest.raises(RateLimited):
            await ledger.charge("t", "gw:t:5", 20_000)
        assert await ledger.audit("t", 0) == 4
        assert 500 < await stored(view) < 2_000
        await ledger.charge("t", "gw:t:5", 20_000)
        assert await ledger.audit("t", 0, most=1) == 1


async def test_hours_whose_turns_are_gone_are_counted_no_more(gateway_settings_for: Make) -> None:
    settings = gateway_settings_for(gateway_stored_bytes=70_000, turn_retention=7200)
    async with opened(settings) as view:
        await accept(
            view,
            NewMessage(agent="a", text="x" * 20_000, idempotency_key="1"),
            Existing(conversation_id="c"),
        )
        with server(view) as client:
            key = "agentapi:gateway:{t}:stored"
            hour = int(client.hget(key, "hour") or 0)
            size = client.hget(key, f"h:{hour}") or b""
            for ago in (3, 4):
                client.hset(key, f"h:{hour - ago}", size)
                client.hincrby(key, "total", int(size))
            client.hset(key, "hour", hour - 1)
            await view.gateway.ledger.charge("t", "gw:t:c", 1)
            assert client.hexists(key, f"h:{hour - 3}")
            assert not client.hexists(key, f"h:{hour - 4}")
            assert int(client.hget(key, "total") or 0) < 65_000


async def test_what_cannot_be_accepted_stores_nothing(gateway_settings_for: Make) -> None:
    async with opened(gateway_settings_for(max_message_bytes=1000)) as view:
        turn_id = await ended_turn(view, "1")
        await ended_turn(view, "2")
        plan = await continue_turn(view, turn_id, "op")
        with server(view) as client:
            before = sorted(client.keys("*"))
            for agent, text in (("a", "x" * 1001), ("a", " "), ("agentapi.compact", "hi")):
                message = NewMessage(agent=agent, text=text, idempotency_key="op")
                with pytest.raises(InvalidInput):
                    await accept(view, message, plan)
            assert sorted(client.keys("*")) == before


async def test_a_conversation_with_ghosts_is_deleted(view: TenantView) -> None:
    ended = await ended_turn(view, "0")
    message = NewMessage(agent="a", text="x", idempotency_key="1")
    ghost = await accept(view, message, Existing(conversation_id="c"))
    with server(view) as client:
        client.delete(turn_keys(ghost).turn)
        client.rpush(conversation_keys(INTERNAL).inbox, ended)
        await asyncio.wait_for(deletion.delete_conversation(view, "c"), 60)
        assert client.keys("agentapi:{*}:c:*") == []
        assert client.keys("agentapi:{*}:t:*") == []
        assert client.zcard(conversation_keys(INTERNAL).due) == 0
    with pytest.raises(NotFound):
        await deletion.delete_conversation(view, "c")


async def test_a_deletion_whose_answer_was_lost(view: TenantView) -> None:
    await filled(view, history_of(3))
    store = view.gateway.conversations
    first = await store.drop(INTERNAL, "t", "op")
    assert first == await store.drop(INTERNAL, "t", "op")
    assert await store.drop(INTERNAL, "t", "another") is None
    with server(view) as client:
        assert client.pttl(f"{conversation_keys(INTERNAL).messages}:dropped:op") > 0


async def test_a_response_and_its_one_off_conversation_go_together(view: TenantView) -> None:
    from orchestrator.gateway.turn_labels import Labels

    message = NewMessage(
        agent="a", text="hi", idempotency_key="1", labels=Labels(implicit=True, seeded=6)
    )
    await filled(view, history_of(0))
    turn_id = await accept(view, message, Existing(conversation_id="c"))
    with pytest.raises(Conflict):
        await deletion.delete_turn(view, await view.turn(turn_id))
    end(view, turn_id, "hi")
    turn = await view.turn(turn_id)
    await ended_turn(view, "2")
    await deletion.delete_turn(view, turn)
    # Another turn is in it.
    assert await view.conversation("c")
    alone = await accept(
        view,
        NewMessage(agent="a", text="hi", idempotency_key="3", labels=Labels(implicit=True)),
        Existing(conversation_id="alone"),
    )
    with server(view) as client:
        client.hset(turn_keys(alone).turn, mapping={"status": "completed", "ended": 1})
        keys = conversation_keys("gw:t:alone")
        client.delete(keys.inbox)
        client.rpush(keys.messages, dumps(UserMessage(content="hi", turn_id=alone)))
    await deletion.delete_turn(view, await view.turn(alone))
    with pytest.raises(NotFound):
        await view.conversation("alone")
