"""The official Python client, as its README and OpenAI's guides use it."""

from __future__ import annotations

from typing import Any

import openai
import openai_chat  # noqa: F401
import openai_responses  # noqa: F401
from kit import BASE, KEY, case, contains, main
from openai import AsyncOpenAI, OpenAI
from openai_shared import STRICT, client

HI: dict[str, Any] = {"model": "plain", "input": "hi"}


def refused(kind: Any, by: OpenAI = client, **request: Any) -> Any:
    try:
        by.responses.create(**request)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


@case("errors")
def unknown_model() -> None:
    error = refused(openai.NotFoundError, model="nobody", input="hi")
    assert error.code == "model_not_found"


@case("errors")
def wrong_key() -> None:
    wrong = OpenAI(base_url=BASE, api_key="wrong", **STRICT)
    assert refused(openai.AuthenticationError, wrong, **HI).code == "invalid_api_key"


@case("errors")
def unknown_response() -> None:
    try:
        client.responses.retrieve("resp_nothing")
    except openai.NotFoundError:
        return
    raise AssertionError("an unknown response was found")


@case("errors")
def key_used_twice() -> None:
    headers = {"Idempotency-Key": f"case-{openai.__version__}"}
    first = client.responses.create(model="plain", input="hi", extra_headers=headers)
    again = client.responses.create(model="plain", input="hi", extra_headers=headers)
    assert first.id == again.id
    refused(openai.UnprocessableEntityError, model="plain", input="other", extra_headers=headers)


@case("quickstart")
async def async_client() -> None:
    async with AsyncOpenAI(base_url=BASE, api_key=KEY, **STRICT) as asynchronous:
        response = await asynchronous.responses.create(
            model="plain", input="Explain disestablishmentarianism to a smart five year old."
        )
        contains(response.output_text, "ack: Explain")


@case("streaming")
async def async_streaming() -> None:
    async with AsyncOpenAI(base_url=BASE, api_key=KEY, **STRICT) as asynchronous:
        stream = await asynchronous.responses.create(
            model="plain", input="Write a one-sentence story.", stream=True
        )
        kinds = [event.type async for event in stream]
        assert kinds[-1] == "response.completed"


if __name__ == "__main__":
    main()
