"""Strands Agents' OpenAIModel, as its documentation uses it."""

from __future__ import annotations

from typing import Any

from kit import BASE, KEY, case, contains, main
from pydantic import BaseModel
from strands import Agent, tool
from strands.models.openai import OpenAIModel


def model(name: str = "plain", **params: Any) -> OpenAIModel:
    made: dict[str, Any] = {"model_id": name}
    if params:
        made["params"] = params
    return OpenAIModel(client_args={"api_key": KEY, "base_url": BASE}, **made)


@tool
def weather(city: str) -> str:
    """Return the weather of a city.

    Args:
        city: The city.
    """
    return f"It is sunny in {city}"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@case("quickstart")
def agent() -> None:
    contains(Agent(model=model(), callback_handler=None)("hello there"), "ack: hello there")


@case("parameters")
def documented_parameters() -> None:
    made = model(max_tokens=1000, temperature=0.7)
    contains(Agent(model=made, callback_handler=None)("hi"), "temperature=0.7")


@case("instructions")
def system_prompt() -> None:
    made = Agent(model=model(), system_prompt="Be brief.", callback_handler=None)
    contains(made("hi"), "Be brief.")


@case("multi-turn")
def multi_turn() -> None:
    made = Agent(model=model(), callback_handler=None)
    made("one")
    contains(made("two"), "users=2")


@case("tools")
def tools() -> None:
    made = Agent(model=model(), tools=[weather], callback_handler=None)
    contains(made("What is the weather in Paris?"), "sunny in Paris")


@case("structured output")
def structured() -> None:
    made = Agent(model=model(), callback_handler=None)
    result = made("He is called Jason and is 25.", structured_output_model=Person)
    assert result.structured_output == Person(name="Jason", age=25), result.structured_output


if __name__ == "__main__":
    main()
