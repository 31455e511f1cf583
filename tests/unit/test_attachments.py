"""Images and files: what callers pass, what is stored, what providers get."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentapi import Agent, File, Image, InMemoryMemory, register_provider
from agentapi.attachments import content_of
from agentapi.errors import InvalidMessage, ProviderRejected, TurnFailed
from agentapi.messages import UserMessage, dumps, loads
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.providers.base import StreamPart
from agentapi.providers.gemini_format import contents
from agentapi.providers.openai_format import request_body
from agentapi.testing import ScriptedProvider, says
from orchestrator import Orchestrator

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]

PNG = b"\x89PNG bytes"
DATA = base64.b64encode(PNG).decode()
PICTURE = Image(data=PNG, media_type="image/png")
LINK = Image(url="https://example.com/a.jpg")
PAPER = File(data=b"%PDF", media_type="application/pdf", name="bill.pdf")


def asked(model: ScriptedProvider, number: int = -1) -> ModelRequest:
    return model.requests[number]


def test_the_bytes_are_beside_the_history(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("A cat."), says("Still a cat."))
    orchestrator = eager_orchestrator([Agent(provider="openai")])
    orchestrator.enqueue("agent", ["What is on this?", PICTURE, LINK], conversation_id="c").result()
    stored = orchestrator.history("c")[0]
    assert stored["content"] == "What is on this?"
    assert stored["attachments"][1] == {"kind": "image", "url": "https://example.com/a.jpg"}
    assert stored["attachments"][0]["size"] == len(PNG)
    assert DATA not in str(stored)
    # A later turn sends it again, from where it is kept.
    orchestrator.enqueue("agent", "Sure?", conversation_id="c").result()
    request = asked(model)
    assert list(request.blobs.values()) == [PNG]
    content = request_body(request)["messages"][0]["content"]
    assert content == [
        {"type": "text", "text": "What is on this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
    ]
    parts = contents(request.messages, request.blobs)[0]["parts"]
    assert parts[1:] == [
        {"inlineData": {"mimeType": "image/png", "data": DATA}},
        {"fileData": {"fileUri": "https://example.com/a.jpg"}},
    ]


def test_files(script: Script, eager_orchestrator: Eager) -> None:
    model = script(says("Seven euros."))
    orchestrator = eager_orchestrator([Agent(provider="openai")])
    turn = orchestrator.enqueue("agent", [PAPER])
    assert turn.info().input == "[file bill.pdf]"
    [_, part] = request_body(asked(model))["messages"][0]["content"]
    assert part["file"]["filename"] == "bill.pdf"
    assert part["file"]["file_data"].startswith("data:application/pdf;base64,")
    by_address = UserMessage(
        content="x", attachments=content_of([File(url="https://x/a.pdf")]).attachments
    )
    with pytest.raises(ProviderRejected, match="no files by address"):
        request_body(ModelRequest(model="m", system_prompt="", messages=[by_address]))


async def test_an_agent_by_itself_keeps_them_in_its_memory(script: Script) -> None:
    model = script(says("one"), says("two"))
    memory = InMemoryMemory()
    agent = Agent(provider="openai", memory=memory)
    await agent.run(["Look", PICTURE])
    await agent.run("Again")
    assert list(asked(model).blobs.values()) == [PNG]
    agent.reset_memory()
    assert memory.blobs(list(asked(model).blobs)) == {}


def test_what_is_no_longer_kept_is_said_in_words() -> None:
    message = UserMessage(content="x", attachments=content_of([PAPER]).attachments)
    request = ModelRequest(model="m", system_prompt="", messages=[message])
    said = "[file bill.pdf is no longer kept]"
    assert request_body(request)["messages"][0]["content"][1] == {"type": "text", "text": said}
    assert contents([message])[0]["parts"][1] == {"text": said}


def test_stored_forms() -> None:
    message = UserMessage(content="x", attachments=content_of([PICTURE, LINK]).attachments)
    assert loads(dumps(message)) == message
    assert dumps(UserMessage(content="x")) == b'{"v":1,"role":"user","content":"x"}'


class Blind:
    """A provider that takes text only."""

    name = "blind"
    default_model = "blind-1"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        raise AssertionError("it was asked")

    def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        raise AssertionError("it was asked")

    async def aclose(self) -> None:
        """Nothing to close."""


def test_a_provider_that_takes_none(eager_orchestrator: Eager) -> None:
    register_provider("blind", Blind)
    orchestrator = eager_orchestrator([Agent(name="b", provider="blind")])
    with pytest.raises(TurnFailed, match="'blind' takes no images and files"):
        orchestrator.enqueue("b", ["Look", PICTURE]).result()


async def test_offline_says_what_came_along() -> None:
    assert await Agent(provider="offline").run(["Look", PICTURE]) == (
        "You said: Look [image image/png]"
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (7, "int, expected text, or a list"),
        ([], "list, expected text"),
        (["x", 7], "part 1 of the message is a int"),
        ([Image()], "either a url or data"),
        ([Image(url="https://x", data=b"x")], "either a url or data"),
        ([Image(url="file:///etc/passwd")], "neither http nor https"),
        ([Image(data=b"x")], "their media_type"),
        ([Image(data=b"x", media_type="png")], "no media type"),
        ([Image(data=b"", media_type="image/png")], "expected bytes"),
    ],
)
def test_what_is_no_message(eager_orchestrator: Eager, message: Any, said: str) -> None:
    orchestrator = eager_orchestrator([Agent(provider="offline")])
    with pytest.raises(InvalidMessage, match=said):
        orchestrator.enqueue("agent", message)


def test_too_many_bytes(eager_orchestrator: Eager) -> None:
    orchestrator = eager_orchestrator([Agent(provider="offline")], max_attachment_bytes=4)
    with pytest.raises(InvalidMessage, match="AGENTAPI_MAX_ATTACHMENT_BYTES"):
        orchestrator.enqueue("agent", ["x", PICTURE])
