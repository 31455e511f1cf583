"""What OpenAI's strict mode gets of a schema."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AnyUrl, BaseModel, Field

from agentapi.agents.output import OutputType
from agentapi.providers.openai.strict_schema import strict


class Size(StrEnum):
    SMALL = "small"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Order(BaseModel):
    """What was asked for."""

    name: str = Field(min_length=1, max_length=5, examples=["tea"])
    price: Decimal
    where: AnyUrl = Field(description="Of the shop.")
    size: Size = Field(default=Size.SMALL, description="How large.")
    tags: set[str] = Field(min_length=1)
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    default: int = Field(ge=1, multiple_of=2)
    parts: list[Order] = []


def schema_of(kind: Any) -> dict[str, Any]:
    made = strict(OutputType(kind, "a").spec.schema)
    assert made is not None
    return dict(made)


def test_what_only_narrows_values_is_left_out() -> None:
    made = schema_of(Order)["$defs"]["Order"]
    assert made["additionalProperties"] is False
    assert made["required"] == list(Order.model_fields)
    properties = made["properties"]
    assert properties["name"] == {"title": "Name", "type": "string"}
    assert properties["where"]["description"] == "Of the shop."
    assert "format" not in properties["where"]
    # pydantic's pattern of a decimal looks ahead, which strict mode does not do.
    assert {"type": "string"} in properties["price"]["anyOf"]
    assert properties["tags"]["items"] == {"type": "string"}
    assert properties["tags"]["minItems"] == 1
    assert "uniqueItems" not in properties["tags"]
    assert properties["default"] == {
        "title": "Default",
        "type": "integer",
        "minimum": 1,
        "multipleOf": 2,
    }


def test_references_and_unions() -> None:
    properties = schema_of(Order)["$defs"]["Order"]["properties"]
    assert properties["size"] == {
        "description": "How large.",
        "anyOf": [{"$ref": "#/$defs/Size"}],
    }
    assert properties["pet"]["anyOf"] == [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]
    assert properties["parts"]["items"] == {"$ref": "#/$defs/Order"}
    assert schema_of(Cat | Dog)["properties"]["value"]["anyOf"]


class Free(BaseModel, extra="allow"):
    name: str


@pytest.mark.parametrize(
    "kind", [dict[str, int], Any, list[Any], list, tuple[int, str], Free, dict], ids=str
)
def test_what_strict_mode_cannot_say(kind: Any) -> None:
    assert strict(OutputType(kind, "a").spec.schema) is None


@pytest.mark.parametrize(
    "node",
    [{"not": {"type": "string"}}, {"type": "string", "if": {}}, {"allOf": [{"type": "string"}]}],
    ids=str,
)
def test_words_that_are_not_known(node: dict[str, Any]) -> None:
    assert strict({"type": "object", "properties": {"x": node}}) is None
