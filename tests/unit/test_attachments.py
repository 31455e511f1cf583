"""Images and files: what callers pass, what is stored, what providers get."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from agentapi import Agent, File, Image, InMemoryMemory, register_provider, tool
from agentapi.conversation.messages import UserMessage, dumps, loads
from agentapi.conversation.user_input import content_of
from agentapi.conversation.window import Window
from agentapi.errors import AttachmentRefused, InvalidMessage, TurnFailed
from agentapi.ids import create_turn_id
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.providers.base import StreamPart
from agentapi.providers.gemini.format import contents
from agentapi.providers.openai.format import request_body
from agentapi.stores import Accepted, Claim
from agentapi.testing import ScriptedProvider, call, calls, says
from agentapi.turns import NewTurn
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


def test_what_is_not_taken_is_said_in_words_later_on() -> None:
    """A conversation that another provider began goes on with this one."""
    content = content_of(["Sum up", File(url="https://x/a.pdf"), PICTURE])
    asked = UserMessage(content=content.text, attachments=content.attachments, turn_id="t1")
    refused = UserMessage(content="Your reply does not fit.")

    def body(*messages: UserMessage) -> Any:
        request = ModelRequest(
            model="m", system_prompt="", messages=messages, blobs=dict(content.blobs)
        )
        return request_body(request)["messages"][0]["content"]

    for to_be_answered in ([asked], [asked, refused]):
        with pytest.raises(AttachmentRefused, match="does not accept file by url"):
            body(*to_be_answered)
    text, image = body(asked, UserMessage(content="And now?", turn_id="t2"))
    assert text["text"] == "Sum up\n[not shown: file by url]"
    assert image["type"] == "image_url"


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
    with pytest.raises(TurnFailed, match="'blind' does not accept image by its bytes"):
        orchestrator.enqueue("b", ["Look", PICTURE]).result()


def test_the_next_provider_is_asked_for_what_the_first_does_not_take(
    script: Script, eager_orchestrator: Eager
) -> None:
    register_provider("blind", Blind)
    model = script(says("A cat."))
    orchestrator = eager_orchestrator([Agent(name="b", provider=["blind", "openai"])])
    assert orchestrator.enqueue("b", ["Look", PICTURE]).result().text == "A cat."
    assert list(asked(model).blobs.values()) == [PNG]


def test_a_conversation_goes_on_with_a_provider_that_takes_none(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(says("A cat."))
    blind = script(says("You showed me something."), provider="gemini")
    blind.takes_attachments = False
    orchestrator = eager_orchestrator(
        [Agent(name="sees", provider="openai"), Agent(name="b", provider="gemini")]
    )
    orchestrator.enqueue("sees", ["Look", PICTURE], conversation_id="c").result()
    orchestrator.enqueue("b", "What was it?", conversation_id="c").result()
    first = asked(blind).messages[0]
    assert first.content == "Look\n[not shown: image by its bytes]"
    assert not isinstance(first, UserMessage) or first.attachments == ()


async def test_bytes_are_fetched_once_a_turn(script: Script) -> None:
    @tool
    def think() -> str:
        """Think."""
        return "thought"

    fetched: list[str] = []

    class Counting(InMemoryMemory):
        def blobs(self, names: Sequence[str]) -> dict[str, bytes]:
            fetched.extend(names)
            return super().blobs(names)

    model = script(says("one"), calls(call("think")), says("two"))
    agent = Agent(provider="openai", tools=[think], memory=Counting())
    await agent.run(["Look", PICTURE])
    await agent.run("Again")
    assert len(fetched) == 1
    assert [list(request.blobs.values()) for request in model.requests] == [[PNG]] * 3


def test_images_do_not_pass_for_text_that_was_estimated(
    script: Script, eager_orchestrator: Eager
) -> None:
    script(says("A cat.", input_tokens=9000), says("Hm.", input_tokens=9000))
    window = Window(messages=None, tokens=1000)
    orchestrator = eager_orchestrator([Agent(provider="openai", window=window)])
    messages: list[tuple[Any, float]] = [(["What is this?", PICTURE], 1), ("What is a cat?", 4)]
    for message, calibration in messages:
        turn = orchestrator.enqueue("agent", message, conversation_id=f"c:{calibration}")
        turn.result()
        later = orchestrator.store.enqueue(
            [
                NewTurn(
                    turn_id=create_turn_id(f"c:{calibration}"),
                    conversation_id=f"c:{calibration}",
                    agent="agent",
                    input="?",
                )
            ]
        )
        assert isinstance(later[0], Accepted)
        claim = orchestrator.store.claim(
            f"c:{calibration}", later[0].turn_id, owner="w", token="t", window=window
        )
        assert isinstance(claim, Claim)
        assert claim.calibration == calibration


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
        ([Image(url="file:///etc/passwd")], "expected http or https"),
        ([Image(url="http://[x/")], "expected http or https"),
        ([Image(url="https:///a.png")], "expected http or https, a host"),
        ([Image(url="https://x/" + "a" * 9000)], "at most 8192 characters"),
        ([Image(url="https://x/\ud800")], "expected http or https"),
        ([Image(url=7)], "expected http or https"),  # type: ignore[arg-type]
        ([File(data=b"x", media_type="a/b", name="\ud800")], "the name is not valid"),
        ([File(data=b"x", media_type="a/b", name="")], "the name is not valid"),
        ([LINK] * 101, "101 images and files, the limit is 100"),
        ([Image(data=b"x")], "and a media_type"),
        ([Image(data=b"x", media_type="png")], "is not a media type"),
        ([Image(data=b"x", media_type=7)], "7 is not a media type"),  # type: ignore[arg-type]
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
