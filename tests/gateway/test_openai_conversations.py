"""The real `openai` client: conversations and chat completions."""

from __future__ import annotations

import httpx2
import openai
import pytest

ASK = "What did I say?"


def test_a_conversation_from_its_making_to_its_end(client: openai.OpenAI) -> None:
    made = client.conversations.create(
        metadata={"topic": "colours"},
        items=[
            {"type": "message", "role": "user", "content": "red"},
            {"type": "message", "role": "assistant", "content": "noted"},
        ],
    )
    assert made.metadata == {"topic": "colours"}
    assert client.conversations.retrieve(made.id) == made
    changed = client.conversations.update(made.id, metadata={"topic": "paint"})
    assert changed.metadata == {"topic": "paint"}
    replied = client.responses.create(model="tools", input=ASK, conversation=made.id)
    assert replied.output_text == "You said 1 thing: red"
    assert replied.conversation is not None
    assert replied.conversation.id == made.id
    client.responses.create(
        model="tools", input='/echo {"text": "x"}', conversation={"id": made.id}
    )
    items = list(client.conversations.items.list(made.id, order="asc", limit=3))
    assert [item.type for item in items] == ["message"] * 5 + ["mcp_call", "message"]
    newest = next(iter(client.conversations.items.list(made.id)))
    assert newest == items[-1]
    ids = [item.id for item in items]
    assert len(set(ids)) == len(ids)
    assert client.conversations.items.retrieve(str(ids[5]), conversation_id=made.id) == items[5]
    with pytest.raises(openai.BadRequestError):
        client.conversations.items.delete(str(ids[5]), conversation_id=made.id)
    client.conversations.items.delete(str(ids[0]), conversation_id=made.id)
    left = [item.id for item in client.conversations.items.list(made.id, order="asc")]
    assert left == ids[1:]
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(str(ids[0]), conversation_id=made.id)
    deleted = client.conversations.delete(made.id)
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(replied.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="tools", input="hi", conversation=made.id)


def test_items_are_added(client: openai.OpenAI) -> None:
    made = client.conversations.create()
    assert list(client.conversations.items.list(made.id)) == []
    added = client.conversations.items.create(
        made.id, items=[{"type": "message", "role": "user", "content": "red"}]
    )
    [item] = added.data
    assert client.conversations.items.list(made.id).data == [item]
    replied = client.responses.create(model="tools", input=ASK, conversation=made.id)
    assert replied.output_text == "You said 1 thing: red"


def test_deleting_a_conversation_stops_its_turns(client: openai.OpenAI) -> None:
    made = client.conversations.create()
    running = [
        client.responses.create(
            model="tools", input='/nap {"seconds": 60}', conversation=made.id, background=True
        )
        for _ in range(3)
    ]
    client.conversations.delete(made.id)
    for response in running:
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response.id)


def test_a_past_item_is_not_said_twice(client: openai.OpenAI) -> None:
    made = client.conversations.create()
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(
            model="tools",
            conversation=made.id,
            input=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        )
    assert caught.value.param == "input"


def test_chat(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model="tools",
        messages=[
            {"role": "user", "content": "red"},
            {"role": "assistant", "content": "noted"},
            {"role": "user", "content": [{"type": "text", "text": ASK}]},
        ],
        n=1,
    )
    assert made.choices[0].message.content == "You said 1 thing: red"
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None
    assert made.usage.total_tokens > 0


def test_chat_streams(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="slow",
            messages=[{"role": "user", "content": "one two three"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert sum(bool(text) for text in texts) > 2
    assert "".join(texts) == "You said: one two three"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    with client.chat.completions.stream(
        model="tools", messages=[{"role": "user", "content": '/echo {"text": "x"}'}]
    ) as stream:
        assert stream.get_final_completion().choices[0].message.content == "echo: x"


def test_chat_in_a_conversation(client: openai.OpenAI, http: httpx2.Client) -> None:
    for said, reply in (("red", "You said: red"), (ASK, "You said 1 thing: red")):
        made = client.chat.completions.create(
            model="tools",
            messages=[{"role": "user", "content": "not new"}, {"role": "user", "content": said}],
            metadata={"conversation_id": "user:42"},
        )
        assert made.choices[0].message.content == reply
    history = http.get("/conversations/user:42/messages").json()["messages"]
    assert [message["content"] for message in history][::2] == ["red", ASK]
    assert client.conversations.retrieve("user:42").id == "user:42"


async def test_the_async_client(served: object) -> None:
    from tests.gateway.conftest import Served

    assert isinstance(served, Served)
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.acme) as client:
        stream = await client.responses.create(model="slow", input="a b c", stream=True)
        events = [event async for event in stream]
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == "You said: a b c"
