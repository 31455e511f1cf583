"""The gateway takes back what it gave, with the real `openai` client."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.gateway.conftest import Served

USER: Any = {"role": "user", "content": "What did I say?"}
ECHO = '/echo {"text": "hi"}'


def history(served: Served, made: Any) -> list[dict[str, Any]]:
    """The messages that the turn of a response began with, without their keys."""
    digits = made.id.removeprefix("resp_")
    with served.http() as http:
        turn = http.get(f"/turns/{digits[:3]}-{digits[3:]}").json()
        found = http.get(f"/conversations/{turn['conversation_id']}/messages").json()
    return [{k: v for k, v in m.items() if k != "turn_id"} for m in found["messages"]]


def test_the_whole_output_of_a_response(client: openai.OpenAI, served: Served) -> None:
    first = client.responses.create(model="tools", input=ECHO)
    assert [item.type for item in first.output] == ["mcp_call", "message"]
    said: Any = [{"role": "user", "content": ECHO}, *first.output, USER]
    second = client.responses.create(model="tools", input=said)
    assert second.output_text == f"You said 1 thing: {ECHO}"
    # The calls and results are those of the turn, with the ids that the provider gave them.
    before = history(served, first)
    assert [m["role"] for m in before] == ["user", "assistant", "tool", "assistant"]
    assert history(served, second)[:4] == before
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.type for item in items] == ["message", "mcp_call", "message", "message"]
    # And once more, as clients do that keep the whole conversation themselves.
    longer: Any = [*said, *second.output, USER]
    third = client.responses.create(model="tools", input=longer)
    assert third.output_text == f"You said 2 things: {ECHO} | What did I say?"
    assert history(served, third)[:4] == before


def test_calls_side_by_side_stay_together(client: openai.OpenAI, served: Served) -> None:
    both = '/echo {"text": "a"}\n/echo {"text": "b"}'
    first = client.responses.create(model="tools", input=both)
    said: Any = [{"role": "user", "content": both}, *first.output, USER]
    second = client.responses.create(model="tools", input=said)
    assert history(served, second)[:5] == history(served, first)
    # Without one of the calls, the others are whole pairs.
    some: Any = [{"role": "user", "content": both}, *first.output[1:], USER]
    third = client.responses.create(model="tools", input=some)
    kept = history(served, third)[:4]
    assert [m["role"] for m in kept] == ["user", "assistant", "tool", "assistant"]
    assert kept[1]["tool_calls"][0]["arguments"] == {"text": "b"}
    assert kept[2]["call_id"] == kept[1]["tool_calls"][0]["id"]


def test_references_to_items(client: openai.OpenAI, served: Served) -> None:
    first = client.responses.create(model="tools", input=ECHO)
    said: Any = [
        {"role": "user", "content": ECHO},
        *({"type": "item_reference", "id": item.id} for item in first.output),
        USER,
    ]
    second = client.responses.create(model="tools", input=said)
    assert history(served, second)[:4] == history(served, first)
    # A form without a type, which OpenAI's API allows.
    bare: Any = [USER, {"id": first.output[-1].id}, USER]
    assert client.responses.create(model="tools", input=bare).status == "completed"


def test_another_tenants_items_do_not_exist(client: openai.OpenAI, served: Served) -> None:
    first = client.responses.create(model="tools", input=ECHO)
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    with served.openai(served.evil) as evil:
        with pytest.raises(openai.NotFoundError) as caught:
            evil.responses.create(model="tools", input=[reference, USER])
        assert (caught.value.code, caught.value.param) == ("item_not_found", "input[0]")
        # What it says itself is its own claim, as any message of the assistant would be.
        forged: Any = {**first.output[0].model_dump(), "output": "forged"}
        made = evil.responses.create(model="tools", input=[USER, forged, USER])
        digits = made.id.removeprefix("resp_")
        with served.http(served.evil) as http:
            turn = http.get(f"/turns/{digits[:3]}-{digits[3:]}").json()
            kept = http.get(f"/conversations/{turn['conversation_id']}/messages").json()
    assert kept["messages"][2]["content"] == "forged"
    # Within the tenant, the result is what the tool said.
    second = client.responses.create(model="tools", input=[USER, forged, USER])
    assert history(served, second)[2]["content"] == "hi"


def test_calls_of_responses_that_are_gone(client: openai.OpenAI, served: Served) -> None:
    first = client.responses.create(model="tools", input=ECHO)
    client.responses.delete(first.id)
    open_call: Any = {**first.output[0].model_dump(), "id": "mcp_other", "output": None}
    failed: Any = {**open_call, "id": "mcp_failed", "error": {"type": "x", "content": "no paper"}}
    said: Any = [USER, *first.output, open_call, failed, USER]
    made = client.responses.create(model="tools", input=said)
    kept = history(served, made)
    assert [m["role"] for m in kept[:6]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "assistant",
        "tool",
    ]
    assert (kept[2]["content"], kept[5]["content"], kept[5]["is_error"]) == ("hi", "no paper", True)


def test_items_of_a_conversation(client: openai.OpenAI) -> None:
    """As the Agents SDK's `OpenAIConversationsSession` keeps its turns."""
    conversation = client.conversations.create()
    first = client.responses.create(model="tools", input=ECHO)
    items: Any = [{"role": "user", "content": ECHO}, *(i.model_dump() for i in first.output)]
    added = client.conversations.items.create(conversation.id, items=items)
    kinds = ["message", "mcp_call", "message"]
    assert [item.type for item in added.data] == kinds
    listed = client.conversations.items.list(conversation.id, order="asc").data
    assert listed == added.data
    call: Any = listed[1]
    assert (call.name, call.output, call.status) == ("echo", "hi", "completed")
    assert len({item.id for item in listed} | {item.id for item in first.output}) == 5
    again = client.conversations.items.create(conversation.id, items=items)
    assert len({item.id for item in [*listed, *again.data]}) == 6
    with pytest.raises(openai.BadRequestError, match="with the request that starts a turn"):
        client.conversations.items.create(
            conversation.id, items=[{"role": "system", "content": "x", "type": "message"}]
        )


def test_what_the_conversation_has_already_changes_nothing(client: openai.OpenAI) -> None:
    first = client.responses.create(model="tools", input=ECHO)
    said: Any = [*first.output, USER]
    second = client.responses.create(model="tools", input=said, previous_response_id=first.id)
    assert second.output_text == f"You said 1 thing: {ECHO}"
    with pytest.raises(openai.BadRequestError, match="already has the earlier messages"):
        client.responses.create(model="tools", input=[USER, USER], previous_response_id=second.id)
