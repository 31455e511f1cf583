"""Instructor, as its documentation uses it, in each of its modes for OpenAI."""

from __future__ import annotations

from typing import Any

import instructor
from kit import BASE, KEY, case, main
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel


class User(BaseModel):
    name: str
    age: int


ASKED: Any = [{"role": "user", "content": "He is called Jason and is 25 years old."}]


def openai() -> OpenAI:
    return OpenAI(base_url=BASE, api_key=KEY)


def _extract(mode: instructor.Mode) -> None:
    client = instructor.from_openai(openai(), mode=mode)
    user = client.chat.completions.create(model="plain", response_model=User, messages=ASKED)
    assert (user.name, user.age) == ("Jason", 25), user


@case("quickstart")
def quickstart() -> None:
    client = instructor.from_openai(openai())
    user = client.chat.completions.create(model="plain", response_model=User, messages=ASKED)
    assert (user.name, user.age) == ("Jason", 25), user


@case("structured output")
def tools_mode() -> None:
    _extract(instructor.Mode.TOOLS)


@case("structured output")
def json_mode() -> None:
    _extract(instructor.Mode.JSON)


@case("structured output")
def json_schema_mode() -> None:
    _extract(instructor.Mode.JSON_SCHEMA)


@case("structured output")
def markdown_mode() -> None:
    _extract(instructor.Mode.MD_JSON)


@case("structured output")
def parallel_tools() -> None:
    client = instructor.from_openai(openai(), mode=instructor.Mode.PARALLEL_TOOLS)
    from collections.abc import Iterable

    users = client.chat.completions.create(
        model="plain",
        response_model=Iterable[User],
        messages=[{"role": "user", "content": "A user is called Jason and is 25."}],
    )
    assert [(user.name, user.age) for user in users] == [("Jason", 25)]


@case("structured output")
def responses_tools_mode() -> None:
    client = instructor.from_openai(openai(), mode=instructor.Mode.RESPONSES_TOOLS)
    user = client.responses.create(model="plain", input=ASKED, response_model=User)
    assert (user.name, user.age) == ("Jason", 25), user


@case("structured output")
async def asynchronous() -> None:
    client = instructor.from_openai(AsyncOpenAI(base_url=BASE, api_key=KEY))
    user = await client.chat.completions.create(model="plain", response_model=User, messages=ASKED)
    assert (user.name, user.age) == ("Jason", 25), user


@case("streaming")
def partial() -> None:
    client = instructor.from_openai(openai())
    parts = client.chat.completions.create_partial(
        model="plain", response_model=User, messages=ASKED
    )
    [*_, last] = parts
    assert (last.name, last.age) == ("Jason", 25)


@case("streaming")
def iterable() -> None:
    client = instructor.from_openai(openai())
    users = client.chat.completions.create_iterable(
        model="plain", response_model=User, messages=ASKED
    )
    assert [(user.name, user.age) for user in users] == [("Jason", 25)]


@case("instructions")
def with_system() -> None:
    client = instructor.from_openai(openai())
    messages = [{"role": "system", "content": "Extract the user."}, *ASKED]
    user = client.chat.completions.create(model="plain", response_model=User, messages=messages)
    assert (user.name, user.age) == ("Jason", 25), user


if __name__ == "__main__":
    main()
