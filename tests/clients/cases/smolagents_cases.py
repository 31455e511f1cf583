"""smolagents' OpenAIServerModel and its agents, as the documentation uses them."""

from __future__ import annotations

from typing import Any

from kit import BASE, KEY, case, contains, main
from smolagents import CodeAgent, OpenAIServerModel, ToolCallingAgent, tool


def model(name: str = "plain", **options: Any) -> OpenAIServerModel:
    return OpenAIServerModel(model_id=name, api_base=BASE, api_key=KEY, **options)


@tool
def weather(city: str) -> str:
    """Return the weather of a city.

    Args:
        city: The city.
    """
    return f"It is sunny in {city}"


@case("quickstart")
def model_call() -> None:
    asked: Any = [{"role": "user", "content": [{"type": "text", "text": "Explain it."}]}]
    contains(model()(asked).content, "ack: Explain it.")


@case("parameters")
def model_with_parameters() -> None:
    asked: Any = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    contains(model(temperature=0.5, max_tokens=99)(asked).content, "temperature=0.5")


@case("instructions")
def code_agent() -> None:
    contains(CodeAgent(tools=[], model=model()).run("Compute it."), "ack from the code agent")


@case("streaming")
def code_agent_streamed() -> None:
    agent = CodeAgent(tools=[], model=model(), stream_outputs=True)
    contains(agent.run("Compute it."), "ack from the code agent")


@case("tools")
def tool_calling_agent() -> None:
    agent = ToolCallingAgent(tools=[weather], model=model(), max_steps=2)
    assert agent.run("What is the weather in Paris?")


if __name__ == "__main__":
    main()
