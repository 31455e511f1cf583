"""``store=false``: nothing of a turn stays after it was read, or after a short time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis

from orchestrator.stack import Stack
from tests.gate import Gate
from tests.gateway.conftest import Served

SECRET = "xylophone-4711"


def keys_with(client: redis.Redis, text: str) -> list[bytes]:
    """The keys whose name or value has a text."""
    wanted = text.encode()
    found = []
    read: Any = client
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        values: list[Any] = [key]
        if kind == b"string":
            values.append(read.get(key))
        elif kind == b"list":
            values += read.lrange(key, 0, -1)
        elif kind == b"hash":
            values += [part for pair in read.hgetall(key).items() for part in pair]
        elif kind == b"stream":
            values += [v for _, fields in read.xrange(key) for v in fields.values()]
        elif kind == b"zset":
            values += read.zrange(key, 0, -1)
        elif kind == b"set":
            values += read.smembers(key)
        if any(wanted in (value or b"") for value in values):
            found.append(key)
    return found


def none_within(client: redis.Redis, text: str, seconds: float) -> None:
    """Wait until no key has a text."""
    deadline = time.monotonic() + seconds
    while found := keys_with(client, text):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture
def store(served: Served) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(served.stack.settings.redis_url) as client:
        yield client


def test_nothing_is_left_once_it_was_read(client: openai.OpenAI, store: redis.Redis) -> None:
    made = client.responses.create(model="tools", input=f"keep {SECRET}", store=False)
    assert made.output_text == f"You said: keep {SECRET}"
    assert made.to_dict()["store"] is False
    none_within(store, SECRET, 30)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError, match="store=false") as caught:
        client.responses.create(model="tools", input="and?", previous_response_id=made.id)
    assert caught.value.param == "previous_response_id"


def test_seeds_tools_delegated_turns_and_streams_leave_nothing(
    client: openai.OpenAI, store: redis.Redis
) -> None:
    said: Any = [
        {"role": "user", "content": f"first {SECRET}"},
        {"role": "assistant", "content": f"second {SECRET}"},
        {"role": "user", "content": f'/echo {{"text": "{SECRET}"}}'},
    ]
    made = client.responses.create(
        model="tools", input=said, store=False, instructions=f"Whisper {SECRET}."
    )
    assert SECRET in made.output_text
    with client.responses.create(
        model="slow", input=f"stream {SECRET}", store=False, stream=True
    ) as stream:
        assert list(stream)[-1].type == "response.completed"
    chat = client.chat.completions.create(model="tools", messages=said, store=False)
    assert SECRET in (chat.choices[0].message.content or "")
    chunks = client.chat.completions.create(
        model="slow", messages=[{"role": "user", "content": SECRET}], store=False, stream=True
    )
    assert SECRET in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    with pytest.raises(openai.InternalServerError, match="OPENAI_API_KEY"):
        client.responses.create(model="keyless", input=f"fail {SECRET}", store=False)
    none_within(store, SECRET, 30)


def test_a_conversation_stays_as_it_was(client: openai.OpenAI, store: redis.Redis) -> None:
    conversation = client.conversations.create()
    first = client.responses.create(model="tools", input="red", conversation=conversation.id)
    between = client.responses.create(
        model="tools", input=f"{SECRET}: what did I say?", conversation=conversation.id, store=False
    )
    assert between.output_text == "You said 1 thing: red"
    continued = client.responses.create(
        model="tools",
        input=f"{SECRET}: what did I say?",
        previous_response_id=first.id,
        store=False,
    )
    assert continued.output_text == "You said 1 thing: red"
    items = client.conversations.items.list(conversation.id).data
    assert len(items) == 2
    none_within(store, SECRET, 30)
    # The response that was continued is still the newest of its conversation.
    after = client.responses.create(
        model="tools", input="What did I say?", previous_response_id=first.id
    )
    assert after.output_text == "You said 1 thing: red"
    assert len(client.conversations.items.list(conversation.id).data) == 4


def test_what_nobody_reads_expires(stack_for: Callable[..., Stack], tmp_path: Path) -> None:
    """The gateway is gone before it could delete anything: Redis forgets by itself."""
    stack = stack_for(unstored_retention=1, heartbeat=0.5, gateway_wait=0.2)
    with (
        openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="-", max_retries=0) as client,
        redis.Redis.from_url(stack.settings.redis_url) as store,
    ):
        gate = Gate(tmp_path / "gate")
        held = f'{gate.message}\n/echo {{"text": "{SECRET}"}}'
        nested = "/fan_out " + json.dumps({"messages": [held, SECRET]})
        for message in (nested, held):
            with pytest.raises(openai.InternalServerError, match="has not ended"):
                client.responses.create(model="tools", input=message, store=False)
        assert keys_with(store, SECRET)
        gate.open()
        none_within(store, SECRET, 60)
        # Neither is a conversation without a name left, nor one of a delegated turn.
        deadline = time.monotonic() + 60
        while left := list(store.scan_iter("agentapi:*:c:*")):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
