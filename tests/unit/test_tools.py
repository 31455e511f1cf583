"""`@tool`: schema, validation, context, threads, time."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from agentapi import ToolContext, tool
from agentapi.errors import InvalidTool
from agentapi.tools.base import explain

CONTEXT = ToolContext(conversation_id="c", turn_id="t", call_id="k", user_id="u", tenant_id="n")


class Address(BaseModel):
    street: str
    number: int = 1


@tool
def send(
    to: Address,
    priority: Literal["low", "high"] = "low",
    copies: Annotated[int, Field(ge=1)] = 1,
) -> dict[str, Any]:
    """Send a parcel.

    It takes days.

    Args:
        to: Where it goes.
        copies: How many.
    """
    return {"street": to.street, "priority": priority, "copies": copies}


def test_schema_from_annotations_and_docstring() -> None:
    spec = send.spec
    assert spec.name == "send"
    assert spec.description == "Send a parcel.\n\nIt takes days."
    properties = spec.parameters["properties"]
    assert properties["to"]["description"] == "Where it goes."
    assert properties["copies"] == {
        "default": 1,
        "description": "How many.",
        "minimum": 1,
        "type": "integer",
    }
    assert properties["priority"]["enum"] == ["low", "high"]
    assert spec.parameters["required"] == ["to"]
    assert spec.parameters["additionalProperties"] is False


async def test_arguments_are_validated_and_become_objects() -> None:
    text = await send.invoke({"to": {"street": "Elm"}, "copies": "2"}, CONTEXT)
    assert text == '{"street":"Elm","priority":"low","copies":2}'
    with pytest.raises(ValidationError) as caught:
        await send.invoke({"to": {}, "copies": 0, "speed": 1}, CONTEXT)
    told = explain(caught.value)
    assert told.startswith("invalid arguments: ")
    for name in ("to.street: Field required", "copies: ", "speed: "):
        assert name in told


async def test_a_context_is_filled_in_and_hidden_from_the_model() -> None:
    @tool
    async def who(context: ToolContext, greeting: str) -> str:
        return f"{greeting} {context.user_id} {context.tenant_id} {context.idempotency_key}"

    assert list(who.spec.parameters["properties"]) == ["greeting"]
    assert await who.invoke({"greeting": "hi"}, CONTEXT) == "hi u n t:k"


async def test_synchronous_tools_run_in_threads() -> None:
    @tool
    def where() -> str:
        return threading.current_thread().name

    assert str(await where.invoke({}, CONTEXT)).startswith("agentapi-tool")
    assert where() == threading.current_thread().name


async def test_a_tool_that_takes_too_long() -> None:
    @tool(timeout=0.05)
    async def slow() -> str:
        await asyncio.sleep(10)
        return "never"

    with pytest.raises(TimeoutError) as caught:
        await slow.invoke({}, CONTEXT)
    assert explain(caught.value) == "the tool did not answer in time"


def test_names_and_descriptions_of_ones_own() -> None:
    @tool(name="find-it", description="Finds.", idempotent=True)
    def find() -> str:
        return "here"

    assert (find.name, find.spec.description, find.idempotent) == ("find-it", "Finds.", True)


def test_what_cannot_be_a_tool() -> None:
    with pytest.raises(InvalidTool, match="'x' has no type"):

        @tool
        def untyped(x) -> str:  # type: ignore[no-untyped-def]
            return str(x)

    with pytest.raises(InvalidTool, match="named parameters only"):

        @tool
        def variadic(*args: int) -> str:
            return str(args)

    with pytest.raises(InvalidTool, match="no JSON schema"):

        @tool
        def odd(x: threading.Thread) -> str:
            return str(x)

    with pytest.raises(InvalidTool, match="not a valid tool name"):
        tool(name="two words")(lambda: "x")
    with pytest.raises(InvalidTool, match="timeout is 0"):
        tool(timeout=0)(test_what_cannot_be_a_tool)
