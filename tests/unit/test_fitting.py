"""Requests that are too long lose history, and conversations remember how long they may be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentapi import Agent, ConfigurationError, Window, load_settings
from agentapi.admission import local_gate
from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    AttachmentKind,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentapi.engine.fitting import SHORTEST_RESULT, Contexts, fit, window_of
from agentapi.engine.model_chain import ModelChain
from agentapi.errors import (
    ContextTooLong,
    NoProviderAvailable,
    ProviderRejected,
    ProviderUnavailable,
)
from agentapi.providers import (
    ModelRequest,
    ModelResponse,
    StreamPart,
    TextReset,
    model_choices,
    providers,
)
from agentapi.providers.errors import refused, reported
from agentapi.providers.estimate import estimate_request
from agentapi.providers.models import SIZES, size_of
from agentapi.testing import ScriptedProvider, assert_valid_history, says
from agentapi.turns.model_size import ModelSize
from orchestrator import Orchestrator

LETTERS = "x" * 392
"""About 100 estimated tokens with what a message costs by itself."""


def turn(number: int) -> list[Message]:
    return [UserMessage(content=f"{number}:{LETTERS}"), AssistantMessage(content=LETTERS)]


def conversation(turns: int) -> list[Message]:
    return [message for number in range(turns) for message in turn(number)]


def request_of(turns: int, *own: Message, **more: Any) -> ModelRequest:
    history = conversation(turns)
    messages = [*history, *(own or (UserMessage(content="hi"),))]
    return ModelRequest(
        model="m", system_prompt="", messages=messages, history=len(history), **more
    )


def size_of_request(request: ModelRequest) -> int:
    return estimate_request(request.system_prompt, request.messages, request.tools)


@dataclass
class Limited:
    """A provider with a context, which counts more tokens than we estimate."""

    context: int
    factor: float = 1.0
    counts: bool = True
    name: str = "limited"
    default_model: str = "m"
    requests: list[ModelRequest] = field(default_factory=list)

    async def complete(self, request: ModelRequest) -> ModelResponse:
        self.requests.append(request)
        counted = round(self.factor * size_of_request(request))
        if counted > self.context:
            raise ContextTooLong(
                "too long",
                provider=self.name,
                status=400,
                limit=self.context if self.counts else None,
                counted=counted if self.counts else None,
            )
        return says("ok", input_tokens=counted)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        yield await self.complete(request)

    async def aclose(self) -> None:
        pass


async def ask(
    model: Any, request: ModelRequest, contexts: Contexts | None = None
) -> tuple[ModelResponse, Contexts]:
    contexts = Contexts() if contexts is None else contexts
    with providers.replaced("openai", lambda: model):
        chain = ModelChain(model_choices("a", "openai", "m"), local_gate({}), contexts=contexts)
        return await chain.complete(request), contexts


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
@pytest.mark.parametrize(("counts", "calls"), [(True, 2), (False, 6)])
async def test_a_conversation_shortens_its_history_and_remembers(
    factor: float, counts: bool, calls: int
) -> None:
    model = Limited(context=1000, factor=factor, counts=counts)
    _, contexts = await ask(model, request_of(40))
    assert 2 <= len(model.requests) <= calls
    last = model.requests[-1]
    assert last.messages[-1] == UserMessage(content="hi")
    assert isinstance(last.messages[0], UserMessage)
    assert last.messages == request_of(40).messages[-len(last.messages) :]
    if counts:
        # No more than necessary is left out.
        assert factor * (size_of_request(last) + 200) > 900
    # The next turn of the conversation asks once, also from another worker.
    again = Limited(context=1000, factor=factor, counts=counts)
    known = Contexts(learned=contexts.news, calibration=contexts.calibration)
    await ask(again, request_of(41), known)
    assert len(again.requests) == 1


async def test_a_message_that_does_not_fit_fails_without_being_remembered() -> None:
    own = UserMessage(content="x" * 8000)
    model, contexts = Limited(context=1000), Contexts()
    with pytest.raises(ContextTooLong):
        await ask(model, request_of(5, own), contexts)
    assert list(model.requests[-1].messages) == [own]
    assert contexts.news == {}


async def test_a_large_message_does_not_cost_later_turns_their_history() -> None:
    own = UserMessage(content="x" * 2800)
    _, contexts = await ask(Limited(context=1000, counts=False), request_of(20, own))
    assert contexts.news["openai:m"] >= 700


async def test_tool_results_of_the_turn_are_shortened_last() -> None:
    call = ToolCall(id="c", name="read", arguments={})
    own: list[Message] = [
        UserMessage(content="read"),
        AssistantMessage(content="", tool_calls=(call,)),
        ToolMessage(call_id="c", name="read", content="long " * 4000),
    ]
    model = Limited(context=1000)
    await ask(model, request_of(3, *own))
    sent = model.requests[-1].messages
    assert [message.role for message in sent] == ["user", "assistant", "tool"]
    assert sent[:2] == own[:2]
    assert sent[2].content.startswith("long ")
    assert "other" in sent[2].content[-80:]
    assert_valid_history(sent)
    # The message itself is as it was: only the request is shorter.
    assert len(own[2].content) == 20_000


async def test_what_is_known_of_a_model_is_used_before_it_is_asked() -> None:
    sizes = {"openai:m": ModelSize(context=1200, output=200)}
    model = Limited(context=1000)
    await ask(model, request_of(40), Contexts(sizes=sizes))
    assert len(model.requests) == 1
    # The reply that the options ask for is not there for the request.
    model = Limited(context=700)
    bounded = request_of(40, options={"max_tokens": 500})
    await ask(model, bounded, Contexts(sizes={"m": ModelSize(context=1200, output=600)}))
    assert len(model.requests) == 1


async def test_a_shorter_request_goes_to_the_model_that_needs_it_only() -> None:
    """One model is away and the other too small: nobody waits, and the first keeps its history."""
    away = ScriptedProvider(ProviderUnavailable("away"), ProviderUnavailable("away"))
    small = Limited(context=1000)
    with providers.replaced("openai", lambda: away), providers.replaced("gemini", lambda: small):
        choices = model_choices("a", ["openai:big", "gemini:small"], None)
        contexts = Contexts()
        chain = ModelChain(choices, local_gate({}), contexts=contexts)
        answer = await chain.complete(request_of(40))
    assert answer.model == "gemini:small"
    assert len(away.requests) == 1
    assert list(contexts.news) == ["gemini:small"]


async def test_a_refusal_after_a_shorter_request_ends_the_call() -> None:
    model = ScriptedProvider(
        ContextTooLong("long"), ProviderRejected("no", provider="p", status=400)
    )
    with pytest.raises(ProviderRejected, match="no"):
        await ask(model, request_of(5))
    stays = ScriptedProvider(*[ContextTooLong("long")] * 20)
    with pytest.raises(ContextTooLong):
        await ask(stays, request_of(40))
    assert 2 < len(stays.requests) < 10


async def test_a_stream_takes_back_what_it_showed() -> None:
    model = ScriptedProvider(ContextTooLong("long"), says("ok"))
    with providers.replaced("openai", lambda: model):
        chain = ModelChain(model_choices("a", "openai", "m"), local_gate({}))
        parts = [part async for part in chain.stream(request_of(5))]
    assert isinstance(parts[1], TextReset)
    assert isinstance(parts[-1], ModelResponse)


async def test_other_failures_stay_what_they_are() -> None:
    away = ScriptedProvider(ProviderUnavailable("away"))
    small = ScriptedProvider(*[ContextTooLong("long")] * 3)
    with providers.replaced("openai", lambda: away), providers.replaced("gemini", lambda: small):
        choices = model_choices("a", ["openai:big", "gemini:small"], None)
        chain = ModelChain(choices, local_gate({}))
        with pytest.raises(NoProviderAvailable):
            await chain.complete(request_of(0))


@given(
    turns=st.integers(0, 12),
    room=st.integers(-50, 3000),
    results=st.lists(st.integers(0, 5000), max_size=4),
)
def test_what_is_left_is_always_valid(turns: int, room: int, results: Sequence[int]) -> None:
    calls = tuple(ToolCall(id=str(n), name="t", arguments={}) for n in range(len(results)))
    own: list[Message] = [UserMessage(content="go")]
    if calls:
        own.append(AssistantMessage(content="", tool_calls=calls))
        own += [
            ToolMessage(call_id=call.id, name="t", content="y" * size)
            for call, size in zip(calls, results, strict=True)
        ]
    request = request_of(turns, *own)
    sent, estimate = fit(request, room)
    assert estimate == size_of_request(sent)
    assert_valid_history(sent.messages)
    assert isinstance(sent.messages[0], UserMessage)
    assert len(sent.messages) - sent.history == len(own)
    if sent.messages != request.messages and size_of_request(sent) > room:
        # Nothing more could be left out.
        assert sent.history == 0
        results_left = [m.content for m in sent.messages if isinstance(m, ToolMessage)]
        assert all(len(content) < SHORTEST_RESULT + 100 for content in results_left)


def test_images_are_not_remembered_as_text() -> None:
    picture = Attachment(kind=AttachmentKind.IMAGE, url="https://example.com/a.png")
    own = UserMessage(content="what is it?", attachments=(picture,))
    contexts = Contexts()
    fitting = contexts.fitting("openai", request_of(5, own))
    assert fitting.shorten(ContextTooLong("long", status=400))
    fitting.answered(0)
    assert contexts.news == {}
    bytes_only = contexts.fitting("openai", request_of(5))
    assert bytes_only.shorten(ContextTooLong("413", status=413, of_model=False))
    bytes_only.answered(0)
    assert contexts.news == {}


@pytest.mark.parametrize(
    ("message", "limit", "counted"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted "
            "in 9001 tokens. Please reduce the length of the messages.",
            8192,
            9001,
        ),
        (
            "This model's maximum context length is 4097 tokens, however you requested 5360 tokens "
            "(1360 in your prompt; 4000 for the completion). Please reduce your prompt.",
            97,
            1360,
        ),
        (
            "This endpoint's maximum context length is 131072 tokens. However, you requested about "
            "150000 tokens (140000 of text input, 10000 in the output).",
            121072,
            140000,
        ),
        (
            "The input token count (1200000) exceeds the maximum number of tokens allowed "
            "(1048576).",
            1048576,
            1200000,
        ),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200000, 210000),
        (
            "request (9012 tokens) exceeds the available context size (4096 tokens), try "
            "increasing it",
            4096,
            9012,
        ),
        (
            "The number of tokens to keep from the initial prompt is greater than the context "
            "length (n_keep: 5005>= n_ctx: 4096).",
            4096,
            5005,
        ),
        ("Your input exceeds the context window of this model.", None, None),
    ],
)
def test_numbers_that_servers_give(message: str, limit: int | None, counted: int | None) -> None:
    for error in (refused("p", 400, message, secret=""), reported("p", message, "")):
        assert isinstance(error, ContextTooLong)
        assert (error.limit, error.counted) == (limit, counted)
    other = reported("p", "the engine is overloaded", "")
    assert isinstance(other, ProviderUnavailable)


@pytest.mark.parametrize(
    ("model", "entry"),
    [
        ("gpt-5", "gpt-5"),
        ("gpt-5.2-mini", "gpt-5"),
        ("gpt-5-chat-latest", "gpt-5-chat"),
        ("gpt-4o-mini", "gpt-4o"),
        ("gpt-4-0613", "gpt-4"),
        ("gpt-4.1-nano", "gpt-4.1"),
        ("openai/gpt-4o", "gpt-4o"),
        ("deepseek/deepseek-r1:free", "deepseek"),
        ("gemini-3.8-flash", "gemini"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1"),
        ("gpt-50", "*"),
        ("something-new", "*"),
        ("", "*"),
    ],
)
def test_models_are_known_by_the_beginning_of_their_names(model: str, entry: str) -> None:
    assert size_of("openai", model, {}) == SIZES[entry]


def test_a_users_table_comes_first() -> None:
    own = {
        "openai:gpt-4o": ModelSize(context=1),
        "gpt-4o": ModelSize(context=2),
        "mine": ModelSize(context=3),
        "*": ModelSize(context=4),
    }
    found = [
        size_of(provider, model, own).context
        for provider, model in [
            ("openai", "gpt-4o"),
            ("openrouter", "openai/gpt-4o-mini"),
            ("openai", "mine-7b"),
            ("openai", "gpt-5"),
            ("openai", "unheard-of"),
        ]
    ]
    assert found == [1, 2, 3, 400_000, 4]


def test_room_for_the_reply() -> None:
    size = ModelSize(context=8192, output=4096)
    assert size.room(None) == 4096
    assert size.room(100) == 8092
    assert size.room(10**9) == 4096
    assert ModelSize(context=10, output=100).room(None) == 5


def test_the_window_of_an_agent_is_that_of_its_smallest_model() -> None:
    agent = Agent(name="a", provider=["openai:gpt-4", "gemini"]).definition
    assert window_of(agent, {}, {}) == Window(tokens=4096)
    assert window_of(agent, {}, {"gemini:x": 300, "other:x": 1}) == Window(tokens=300)
    assert window_of(Agent(name="a", window=None).definition, {}, {}) == Window()


async def test_an_agent_by_itself_remembers_until_its_memory_is_reset() -> None:
    model = Limited(context=1000, factor=2.0)
    agent = Agent(name="a", provider="openai", model="m", window=50)
    with providers.replaced("openai", lambda: model):
        for number in range(6):
            assert await agent.run(f"{number}: {LETTERS}") == "ok"
        refused = len(model.requests) - 6
        assert refused > 0
        await agent.run(LETTERS)
        assert len(model.requests) - 7 == refused
        agent.reset_memory()
        assert await agent.run("hi") == "ok"


def test_windows_of_messages_are_calibrated_once_they_overflow(
    eager_orchestrator: Callable[..., Orchestrator],
) -> None:
    model = Limited(context=1000, factor=3.0)
    agent = Agent(name="a", provider="openai", model="m", window=50)
    orchestrator = eager_orchestrator([agent])
    with providers.replaced("openai", lambda: model):
        for number in range(4):
            said = f"{number}: {LETTERS}"
            orchestrator.enqueue("a", said, conversation_id="c").result()
        refused = len(model.requests) - 4
        assert refused > 0
        for _ in range(4):
            orchestrator.enqueue("a", LETTERS, conversation_id="c").result()
    assert len(model.requests) - 8 == refused


def test_sizes_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPI_MODELS", '{"openai:mine": {"context": 8192}, "*": {"context": 9}}')
    own = load_settings().models
    assert size_of("openai", "mine", own) == ModelSize(context=8192, output=4096)
    assert size_of("openai", "other", own).context == 9
    monkeypatch.setenv("AGENTAPI_MODELS", '{"mine": {"context": 0}}')
    with pytest.raises(ConfigurationError, match="AGENTAPI_MODELS"):
        load_settings()
