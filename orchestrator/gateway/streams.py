"""The streams that routes answer with: native, responses, chat completions."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from agentapi.errors import AgentAPIError
from agentapi.logs import line
from agentapi.turns import Event, Turn, TurnStatus
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.http.errors import Problem, problem_of
from orchestrator.gateway.http.sse import SIGN_OF_LIFE, frame
from orchestrator.gateway.ids import response_id
from orchestrator.gateway.openai.chat_stream import ChatStream
from orchestrator.gateway.openai.response_stream import ResponseStream
from orchestrator.gateway.view import TenantView

log = logging.getLogger("agentapi.gateway")

_WHY: Final = {
    Closed.SLOW: "the client took the events too slowly",
    Closed.STOPPING: "this gateway is shutting down",
    Closed.UNREADABLE: "what is stored of the turn cannot be read",
}

DONE: Final = b"data: [DONE]\n\n"


async def native_stream(view: TenantView, turn: Turn, after: int) -> AsyncGenerator[bytes, None]:
    """A turn's own events after a number."""
    seen = after
    try:
        async with aclosing(view.follow(turn, after)) as following:
            async for found in following:
                if isinstance(found, Closed):
                    data = {"message": f"{_WHY[found]}; resume with Last-Event-ID", "after": seen}
                    yield frame(data, event="interrupted")
                    return
                if found:
                    seen = found[-1].number
                    yield b"".join(_native_frame(event) for event in found)
                else:
                    yield SIGN_OF_LIFE
    except Exception as error:
        data = {**_problem(view, turn, error).body()["error"], "after": seen}
        yield frame(data, event="interrupted")


def _native_frame(event: Event) -> bytes:
    data = {"number": event.number, "type": event.type.value, **event.data}
    return frame(data, event=event.type.value, number=event.number)


async def response_stream(
    view: TenantView, turn: Turn, after: int, *, fresh: bool = False
) -> AsyncGenerator[bytes, None]:
    """A turn as the events of a response, those after a sequence number."""
    stream = ResponseStream(turn, view.public(turn.conversation_id))

    def frames(events: Iterator[dict[str, Any]]) -> bytes:
        return b"".join(
            frame(event, event=event["type"])
            for event in events
            if event["sequence_number"] > after
        )

    def interrupted(code: str, why: str) -> bytes:
        # It is no event of the response: it repeats the number to resume from.
        last = max(after, stream.sequence)
        message = (
            f"{why}; the response goes on: GET /v1/responses/{response_id(turn.turn_id)}"
            f"?stream=true&starting_after={last}"
        )
        data = {
            "type": "error",
            "sequence_number": last,
            "code": code,
            "message": message,
            "param": None,
        }
        return frame(data, event="error")

    try:
        if opening := frames(stream.opening()):
            yield opening
        async with aclosing(view.follow(turn, -1, fresh=fresh)) as following:
            async for found in following:
                if isinstance(found, Closed):
                    yield interrupted("stream_interrupted", _WHY[found])
                    return
                chunks = [frames(stream.feed(event)) for event in found if not event.type.ends]
                if found and found[-1].type.ends:
                    chunks.append(frames(stream.ending(await view.turn(turn.turn_id))))
                if chunk := b"".join(chunks):
                    yield chunk
                elif not found:
                    yield SIGN_OF_LIFE
    except Exception as error:
        problem = _problem(view, turn, error)
        yield interrupted(problem.code or "internal", problem.message)


async def chat_stream(
    view: TenantView, turn: Turn, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """A turn as the chunks of a chat completion."""
    stream = ChatStream(turn, include_usage=include_usage)
    yield frame(stream.opening())
    try:
        async with aclosing(view.follow(turn, -1, fresh=True)) as following:
            async for found in following:
                if isinstance(found, Closed):
                    yield frame(_error("stream_interrupted", f"{_WHY[found]}; {_where(turn)}"))
                    return
                chunks = [frame(chunk) for event in found for chunk in stream.feed(event)]
                if found and found[-1].type.ends and not stream.broken:
                    ended = await view.turn(turn.turn_id)
                    chunks += [frame(chunk) for chunk in stream.ending(ended)]
                    if ended.status is TurnStatus.COMPLETED and not stream.broken:
                        chunks.append(DONE)
                if chunks or not found:
                    yield b"".join(chunks) or SIGN_OF_LIFE
                if stream.broken:
                    why = f"the text shown so far was given up; {_where(turn)}"
                    yield frame(_error("stream_restarted", why))
                    return
    except Exception as error:
        yield frame(_problem(view, turn, error).body())


def _problem(view: TenantView, turn: Turn, error: Exception) -> Problem:
    """How an error is told at the end of a stream; of one that is not ours, nothing is."""
    problem = problem_of(error)
    if isinstance(error, AgentAPIError):
        return replace(problem, message=view.scrub(error))
    log.error(line("stream.crashed", turn_id=turn.turn_id, error=type(error).__name__))
    return replace(problem, message="the gateway failed")


def _where(turn: Turn) -> str:
    return f"the turn goes on: GET /v1/responses/{response_id(turn.turn_id)} has its reply"


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
