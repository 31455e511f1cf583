"""The native stream: a turn's own events, numbered."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from agentapi.turns import Event, EventType, Turn
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.http.errors import public_text
from orchestrator.gateway.http.sse import SIGN_OF_LIFE, frame
from orchestrator.gateway.http.stream_errors import CLOSED, stream_problem
from orchestrator.gateway.view import TenantView


async def native_stream(view: TenantView, turn: Turn, after: int) -> AsyncGenerator[bytes, None]:
    """A turn's events after a number, as server-sent events."""
    seen = after
    try:
        async with aclosing(view.follow(turn.turn_id, after)) as following:
            async for found in following:
                if isinstance(found, Closed):
                    data = {"message": f"{CLOSED[found]}; resume with Last-Event-ID", "after": seen}
                    yield frame(data, event="interrupted")
                    return
                if found:
                    seen = found[-1].number
                    yield b"".join(_frame(event) for event in found)
                else:
                    yield SIGN_OF_LIFE
    except Exception as error:
        problem = stream_problem(error, view.tenant, turn.turn_id)
        yield frame({**problem.body()["error"], "after": seen}, event="interrupted")


def _frame(event: Event) -> bytes:
    data = {"number": event.number, "type": event.type.value, **event.data}
    if event.type is EventType.FAILED and "message" in data:
        data["message"] = public_text(str(data["message"]), data.get("code"))
    return frame(data, event=event.type.value, number=event.number)
