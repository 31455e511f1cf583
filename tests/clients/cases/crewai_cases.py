"""CrewAI's LLM and crews, as its documentation uses them."""

from __future__ import annotations

from typing import Any

from crewai import LLM, Agent, Crew, Task
from kit import BASE, KEY, case, contains, main
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


def llm(**options: Any) -> LLM:
    return LLM(model="openai/plain", base_url=BASE, api_key=KEY, **options)


def crew(**options: Any) -> Crew:
    agent = Agent(
        role="Researcher", goal="Find it", backstory="You are thorough.", llm=llm(), verbose=False
    )
    task = Task(
        description="He is called Jason and is 25.",
        expected_output="A report",
        agent=agent,
        **options,
    )
    return Crew(agents=[agent], tasks=[task], verbose=False)


@case("quickstart")
def call() -> None:
    contains(llm().call("Explain it."), "ack: Explain it.")


@case("parameters")
def call_with_parameters() -> None:
    contains(llm(temperature=0.7, max_tokens=200).call("hi"), "temperature=0.7")


@case("instructions")
def kickoff() -> None:
    contains(crew().kickoff().raw, "ack")


@case("structured output")
def output_pydantic() -> None:
    assert crew(output_pydantic=Person).kickoff().pydantic is not None


if __name__ == "__main__":
    main()
