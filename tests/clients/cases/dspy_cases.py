"""DSPy, as its documentation uses it with a server that speaks OpenAI's API."""

from __future__ import annotations

import dspy
from kit import BASE, KEY, case, contains, main


def lm(**options: object) -> dspy.LM:
    return dspy.LM("openai/plain", api_base=BASE, api_key=KEY, cache=False, **options)


@case("quickstart")
def call() -> None:
    contains(lm()("Say this is a test!"), "ack: Say this is a test!")


@case("quickstart")
def call_with_messages() -> None:
    contains(lm()(messages=[{"role": "user", "content": "Say this."}]), "ack: Say this.")


@case("parameters")
def parameters() -> None:
    contains(lm(temperature=0.3, max_tokens=300)("hi"), "temperature=0.3")


@case("instructions")
def predict() -> None:
    with dspy.context(lm=lm()):
        contains(dspy.Predict("question -> answer")(question="What is it?").answer, "ack")


@case("instructions")
def chain_of_thought() -> None:
    with dspy.context(lm=lm()):
        answer = dspy.ChainOfThought("question -> answer")(question="What is it?")
    contains(answer.answer, "ack")


@case("structured output")
def json_adapter() -> None:
    with dspy.context(lm=lm(), adapter=dspy.JSONAdapter()):
        answer = dspy.Predict("question -> answer")(question="What is it?")
    assert answer.answer


@case("multi-turn")
def history() -> None:
    class Chat(dspy.Signature):
        question: str = dspy.InputField()
        history: dspy.History = dspy.InputField()
        answer: str = dspy.OutputField()

    with dspy.context(lm=lm()):
        turns = dspy.History(messages=[{"question": "a", "answer": "b"}])
        contains(dspy.Predict(Chat)(question="c", history=turns).answer, "ack")


if __name__ == "__main__":
    main()
