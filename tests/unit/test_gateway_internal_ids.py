"""No error that reaches a client names a conversation by its id in Redis."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from starlette.datastructures import Headers
from starlette.types import Scope

from agentapi.errors import AgentAPIError, ConversationBusy
from agentapi.stores import refusals
from agentapi.turns import Event, EventType, Turn, TurnError, TurnStatus
from orchestrator.gateway import create_app
from orchestrator.gateway.http.errors import NotFound, problem_of
from orchestrator.gateway.http.middleware import RequestGate
from orchestrator.gateway.http.request_body import BodyReader
from orchestrator.gateway.native.stream import native_stream
from orchestrator.gateway.native.turns import turn_view
from orchestrator.gateway.openai.chat_stream import ChatStream
from orchestrator.gateway.openai.objects import response_object
from orchestrator.gateway.openai.parts import Part
from orchestrator.gateway.openai.streams import chat_stream, response_stream
from orchestrator.gateway.settings import load_gateway_settings
from orchestrator.gateway.view import TenantView
from orchestrator.results import raise_if_failed

TENANT = "acme"
PUBLIC = "user:42"
INTERNAL = f"gw:{TENANT}:{PUBLIC}"
TURN = Turn(
    turn_id="007-" + "a" * 32,
    conversation_id=INTERNAL,
    agent="a",
    input="hi",
    status=TurnStatus.QUEUED,
    tenant_id=TENANT,
)


def subclasses(kind: type[AgentAPIError]) -> Iterator[type[AgentAPIError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


# Other tests define subclasses too.
KINDS = sorted(
    {
        kind
        for kind in subclasses(AgentAPIError)
        if kind.__module__.split(".")[0] in {"agentapi", "workers", "orchestrator"}
    },
    key=lambda kind: f"{kind.__module__}.{kind.__qualname__}",
)


def made(kind: type[AgentAPIError], message: str) -> AgentAPIError:
    try:
        error = kind(message)
    except TypeError:
        # It takes other arguments, none of which the gateway reads.
        error = kind.__new__(kind, message)
    error.conversation_id = INTERNAL
    return error


class Admitting:
    """Admits every request as one tenant, or refuses every request with an error."""

    def __init__(self, refusal: AgentAPIError | None) -> None:
        self._refusal = refusal

    async def authenticate(self, scope: Scope, headers: Headers) -> None:
        scope["state"]["tenant"] = TENANT
        if self._refusal is not None:
            raise self._refusal


class Failing(TenantView):
    """A tenant's view whose turns cannot be followed."""

    def __init__(self, error: AgentAPIError) -> None:
        super().__init__(None, TENANT)  # type: ignore[arg-type]
        self._error = error

    async def follow(
        self, turn_id: str, after: int, *, fresh: bool = False
    ) -> AsyncGenerator[list[Event], None]:
        yield []
        raise self._error


async def told(error: AgentAPIError) -> list[str]:
    """What clients see of an error: from a route, before a route, and in streams."""
    settings = load_gateway_settings()
    app = create_app(settings)

    @app.get("/fails")
    async def fails() -> None:
        raise error

    answers = []
    for refusal in (None, error):
        gate = RequestGate(app, Admitting(refusal), BodyReader(settings))  # type: ignore[arg-type]
        transport = httpx2.ASGITransport(app=gate)
        async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
            answer = await client.get("/fails")
            assert answer.status_code >= 400
            answers.append(answer.text)
    view = Failing(error)
    for stream in (
        native_stream(view, TURN, -1),
        response_stream(view, TURN, -1),
        chat_stream(view, TURN, include_usage=False),
    ):
        answers.append(b"".join([frame async for frame in stream]).decode())
    return answers


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
async def test_no_error_shows_an_internal_id(kind: type[AgentAPIError]) -> None:
    for message in ("why", f"conversation {INTERNAL!r} is strange", f"at agentapi:{INTERNAL}:x"):
        for text in await told(made(kind, message)):
            assert INTERNAL not in text
            assert f"gw:{TENANT}" not in text
            assert "reason" in text if INTERNAL in message else "why" in text


async def test_the_public_id_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    for error in (
        refusals.busy(INTERNAL, 3),
        refusals.rejected(INTERNAL, 3),
        refusals.other_tenant(INTERNAL),
    ):
        assert INTERNAL in str(error)
        for text in await told(error):
            assert f"(conversation_id='{PUBLIC}')" in text
    # Ids of another tenant, which should never happen, and of no tenant.
    for other in ("gw:evil:user:42", "turn:1/2"):
        error = ConversationBusy("why", conversation_id=other)
        assert problem_of(error, TENANT).message == "why"
    # A client that mistakes an internal id for a public one sees the id it sent.
    mistaken = NotFound("why", conversation_id=f"gw:{TENANT}:{INTERNAL}")
    assert problem_of(mistaken, TENANT).message == f"why (conversation_id='{INTERNAL}')"
    assert "error.withheld" not in caplog.text


def test_what_a_failed_turn_says(caplog: pytest.LogCaptureFixture) -> None:
    why = TurnError(code="vetoed", message=f"no more for {INTERNAL}")
    turn = replace(TURN, status=TurnStatus.FAILED, error=why)
    view = TenantView(None, TENANT)  # type: ignore[arg-type]
    part = Part(turn=turn, number=0, begins=None, ends=None, made=())
    shown: list[Any] = [
        turn_view(view, turn).error,
        response_object(part, PUBLIC)["error"],
        *ChatStream(turn, include_usage=False).ending(part),
    ]
    with pytest.raises(AgentAPIError) as caught:
        raise_if_failed(turn)
    shown.append(problem_of(caught.value, TENANT).body())
    for what in shown:
        assert "vetoed: the reason names an internal id" in str(what)
        assert INTERNAL not in str(what)
    with caplog.at_level(logging.ERROR):
        turn_view(view, turn)
    assert "error.withheld code=vetoed" in caplog.text
    assert INTERNAL not in caplog.text


async def test_what_the_event_of_a_failure_says() -> None:
    data = {"code": "vetoed", "message": f"no more for {INTERNAL}"}

    class Following(TenantView):
        async def follow(
            self, turn_id: str, after: int, *, fresh: bool = False
        ) -> AsyncGenerator[list[Event], None]:
            yield [Event(number=0, type=EventType.FAILED, data=data)]

    view = Following(None, TENANT)  # type: ignore[arg-type]
    frames = [frame async for frame in native_stream(view, TURN, -1)]
    assert b"vetoed: the reason names an internal id" in frames[0]
    assert INTERNAL.encode() not in frames[0]
