"""Types of contexts, and functions as prompts and tools: what is refused, and when."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from typing_extensions import TypedDict

from agentapi import Agent, InvalidAgent, InvalidContext, ToolContext, TurnContext, tool
from agentapi.agents.context_type import MAX_CONTEXT_BYTES, ContextType, stored_context
from agentapi.agents.functions import PromptFunction


class Shopper(BaseModel):
    """A context."""

    name: str
    since: date = date(2026, 1, 2)


class Regular(Shopper):
    """A shopper who comes often."""


@dataclasses.dataclass
class Order:
    """Another one."""

    number: int


class Flags(TypedDict):
    """A third."""

    beta: bool


class Unstorable:
    """No type that pydantic knows."""


class WithFunction(BaseModel):
    """Has a field that JSON cannot express."""

    call: Callable[[], None]


class Key(BaseModel):
    """Has a secret."""

    key: SecretStr


class WithKey(BaseModel):
    """Has a secret in a field of a field."""

    keys: list[Key] = []


class OneWay(BaseModel):
    """Writes another name than it reads."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(validation_alias="in", serialization_alias="out")


class Broken(BaseModel):
    """Its own check has a fault."""

    name: str

    @model_validator(mode="after")
    def fail(self) -> Broken:
        raise KeyError(self.name)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Unstorable, "cannot be stored as JSON: Unable to generate pydantic-core schema"),
        (WithFunction, "cannot be stored as JSON"),
        (int, "is not a JSON object"),
        (list[int], "is not a JSON object"),
        (Any, "is not a JSON object"),
        (Shopper | int, "is not a JSON object"),
        (Key, r"has a secret \(key\)"),
        (WithKey, r"has a secret \(key\)"),
        (Shopper(name="ann"), "cannot be stored as JSON"),
    ],
)
def test_a_type_that_cannot_be_stored_is_refused(kind: Any, why: str) -> None:
    with pytest.raises(InvalidAgent, match=f"agent 'a': context_type .* {why}.*; expected"):
        Agent(name="a", context_type=kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Shopper, Shopper(name="ann")),
        (Shopper, {"name": "ann", "since": "2026-05-06"}),
        (Shopper, {"name": "ann", "since": date(2026, 5, 6)}),
        (Order, Order(number=7)),
        (Order, {"number": 7}),
        (Flags, {"beta": True}),
        (Shopper | None, Shopper(name="ann")),
        (Shopper | Order, Order(number=7)),
        (dict[str, int], {"a": 1}),
    ],
)
def test_a_value_is_stored_and_read_again(kind: Any, value: Any) -> None:
    known = ContextType(kind, "a")
    stored = known.store(value)
    read = known.load(stored)
    assert known.store(read) == stored
    if not isinstance(value, Mapping):
        assert read == value


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (Shopper, {}, "not a Shopper, the context_type of agent 'a': name: Field required"),
        (Shopper, Order(number=7), "not a Shopper"),
        (Shopper, "ann", "not a Shopper"),
        (Shopper, None, r"agent 'a' needs a context.*context=Shopper\(\.\.\.\)"),
        (Order, {"number": "many"}, "number: Input should be a valid integer"),
        (OneWay, {"in": "x"}, "not a OneWay"),
        (Broken, {"name": "ann"}, "KeyError during validation"),
        (Shopper, {"name": "x" * MAX_CONTEXT_BYTES}, "bytes: expected a JSON object of at most"),
    ],
)
def test_a_value_that_does_not_match_is_refused(kind: Any, value: Any, why: str) -> None:
    with pytest.raises(InvalidContext, match=why) as caught:
        ContextType(kind, "a").store(value)
    assert "many" not in str(caught.value)
    assert "ann" not in str(caught.value)


def test_a_value_of_a_subclass_is_stored_as_the_declared_type() -> None:
    known = ContextType(Shopper, "a")
    assert known.load(known.store(Regular(name="ann"))) == Shopper(name="ann")


def test_a_turn_without_a_context_gets_the_defaults() -> None:
    class Plan(BaseModel):
        name: str = "free"

    assert ContextType(Plan, "a").load(None) == Plan(name="free")
    assert ContextType[Any](Shopper | None, "a").load(None) is None  # type: ignore[arg-type]
    assert ContextType(Plan, "a").has_default
    assert not ContextType(Shopper, "a").has_default


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        ({"a": (1, date(2026, 1, 2))}, {"a": [1, "2026-01-02"]}),
        (Shopper(name="ann"), {"name": "ann", "since": "2026-01-02"}),
        (Order(number=7), {"number": 7}),
        ({"in": Order(number=7)}, {"in": {"number": 7}}),
    ],
)
def test_a_producer_that_does_not_know_the_agent_sends_any_object(value: Any, stored: Any) -> None:
    assert stored_context(value, None) == stored


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


class Twisted(BaseModel):
    """Is changed after it was checked."""

    number: int = 1


def twisted() -> Twisted:
    value = Twisted()
    value.number = "private words"  # type: ignore[assignment]
    return value


def test_a_value_that_was_changed_is_checked_again() -> None:
    with pytest.raises(InvalidContext, match="number: Input should be a valid integer") as caught:
        ContextType(Twisted, "a").store(twisted())
    assert "private words" not in str(caught.value)
    # Without the type, the worker finds it.
    assert stored_context(twisted(), None) == {"number": "private words"}


@pytest.mark.parametrize(
    "value",
    [
        "text",
        7,
        [1],
        Shopper,
        object(),
        {"a": object()},
        {"a": 2**70},
        {"a": "\ud800"},
        Key(key=SecretStr("k")),
        WithFunction(call=print),
        _nested(300),
        {"a": "x" * MAX_CONTEXT_BYTES},
    ],
)
def test_what_json_cannot_express_is_refused(value: object) -> None:
    with pytest.raises(InvalidContext, match=r"the context.* expected"):
        stored_context(value, None)


def test_what_is_stored_is_a_copy() -> None:
    value = {"tags": ["a"]}
    stored = stored_context(value, None)
    value["tags"].append("b")
    assert stored == {"tags": ["a"]}


def good(turn: TurnContext[Shopper]) -> str:
    return turn.context.name


async def also_good(turn: TurnContext[Shopper]) -> str:
    return turn.context.name


def for_anybody(turn: TurnContext) -> str:
    return turn.turn_id


def with_more(greeting: str, turn: TurnContext[Shopper], end: str = "!") -> str:
    return f"{greeting} {turn.context.name}{end}"


class Prompt:
    """An object that can be called."""

    def __call__(self, turn: TurnContext[Shopper]) -> str:
        return turn.context.name


@pytest.mark.parametrize(
    "prompt",
    [
        "text",
        "",
        good,
        also_good,
        for_anybody,
        functools.partial(with_more, "Hi"),
        Prompt(),
        lambda turn: turn.turn_id,
        lambda *turns: "x",
    ],
)
def test_prompts_that_are_accepted(prompt: str | PromptFunction[Shopper]) -> None:
    Agent(name="a", system_prompt=prompt, context_type=Shopper)


def for_anybody_else(what: str) -> str:
    """A tool; its only parameter does not make it a function of the turn."""
    return what


def two(turn: TurnContext[Shopper], more: int) -> str:
    return "x"


def none() -> str:
    return "x"


def by_name(*, turn: TurnContext[Shopper]) -> str:
    return "x"


def nothing(turn: TurnContext[Shopper]) -> None:
    pass


def pieces(turn: TurnContext[Shopper]) -> Iterator[str]:
    yield "x"


async def async_pieces(turn: TurnContext[Shopper]) -> AsyncIterator[str]:
    yield "x"


def of_text(turn: str) -> str:
    return turn


def of_the_context(turn: Shopper) -> str:
    return turn.name


def of_order(turn: TurnContext[Order]) -> str:
    return str(turn.context.number)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        (None, "system_prompt is None: expected text, or a function"),
        (7, "system_prompt is 7"),
        (["text"], "system_prompt is"),
        (Prompt, "system_prompt is <class"),
        (two, r"system_prompt=two has the parameters .*missing a required argument: 'more'"),
        (none, "system_prompt=none has the parameters .*too many positional arguments"),
        (by_name, "system_prompt=by_name has the parameters"),
        (nothing, "declared to return None"),
        (pieces, "is a generator"),
        (async_pieces, "is a generator"),
        (of_text, "of_text takes a str: expected a parameter of type TurnContext"),
        (of_the_context, "takes a Shopper: expected a parameter of type TurnContext"),
        (of_order, "expects a context of type Order, but the agent has context_type=Shopper"),
    ],
)
def test_a_prompt_that_is_not_acceptable_is_refused_at_once(prompt: Any, why: str) -> None:
    with pytest.raises(InvalidAgent, match=f"agent 'a': .*{why}"):
        Agent(name="a", system_prompt=prompt, context_type=Shopper)


def test_the_type_must_be_declared() -> None:
    with pytest.raises(InvalidAgent, match="of type Shopper, but the agent has no context_type"):
        Agent(name="a", system_prompt=good)
    Agent(name="a", system_prompt=for_anybody)


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        (two, "tools=two has the parameters"),
        (nothing, "declared to return None"),
        (of_order, "expects a context of type Order"),
        (None, "tools is None: expected a list of tools, or a function"),
        (7, "tools is 7"),
        ("look", "tools is 'look'"),
        (Prompt, "tools is <class"),
        (tool(for_anybody_else), "tools is Tool"),
    ],
)
def test_a_tools_function_is_checked_as_well(tools: Any, why: str) -> None:
    with pytest.raises(InvalidAgent, match=f"agent 'a': .*{why}"):
        Agent(name="a", tools=tools, context_type=Shopper)


@tool
def of_shopper(context: ToolContext[Shopper]) -> str:
    """Look."""
    return context.context.name


@tool
def of_anybody(context: ToolContext, what: str) -> str:
    """Look."""
    return what


@tool
def of_a_dict(context: ToolContext[dict[str, Any] | None]) -> str:
    """Look."""
    return str(context.context)


def test_tools_must_want_the_type_that_the_agent_declares() -> None:
    Agent(name="a", tools=[of_shopper, of_anybody], context_type=Shopper)
    Agent(name="a", tools=[of_shopper], context_type=Regular)
    Agent(name="a", tools=[of_a_dict, of_anybody])
    for kind in (None, Order, Shopper | None):
        other: Any = kind
        with pytest.raises(
            InvalidAgent, match="tool 'of_shopper' expects a context of type Shopper"
        ):
            Agent(name="a", tools=[of_shopper], context_type=other)
    assert of_shopper.spec.parameters["properties"] == {}
    assert list(of_anybody.spec.parameters["properties"]) == ["what"]


def decides(context: ToolContext[Order]) -> bool:
    return context.context.number > 1


@tool(requires_approval=decides)
def decided(context: ToolContext, what: str) -> str:
    """Look."""
    return what


def test_so_must_functions_that_decide_about_approvals() -> None:
    Agent(name="a", tools=[decided], context_type=Order)
    with pytest.raises(InvalidAgent, match="tool 'decided' expects a context of type Order"):
        Agent(name="a", tools=[decided], context_type=Shopper)


def test_an_agent_asked_must_be_able_to_get_its_context() -> None:
    seller = Agent(name="seller", context_type=Shopper)
    Agent(name="a", tools=[seller.as_tool()])
    Agent(name="a", tools=[seller.as_tool()], context_type=Shopper)
    with pytest.raises(InvalidAgent, match="asks agent 'seller', which has a different"):
        Agent(name="a", tools=[seller.as_tool()], context_type=Order)
