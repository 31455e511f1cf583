"""The streams of OpenAI's API: responses as events, chat completions as chunks.

`ResponseStream` and `ChatStream` translate the events. This module reads, sends and interrupts
them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

from agentapi.turns import Event, Turn, TurnStatus
from orchestrator.events.async_follower import Closed
from orchestrator.gateway.http.sse import SIGN_OF_LIFE, comment, frame
from orchestrator.gateway.http.stream_errors import CLOSED, stream_problem
from orchestrator.gateway.ids import response_id
from orchestrator.gateway.openai.chat_stream import ChatStream
from orchestrator.gateway.openai.parts import read_part
from orchestrator.gateway.openai.response_stream import ResponseStream
from orchestrator.gateway.view import TenantView
from orchestrator.wording import wait_of

_DONE: Final = b"data: [DONE]\n\n"


async def response_stream(
    view: TenantView, turn: Turn, after: int, *, number: int = 0, fresh: bool = False
) -> AsyncGenerator[bytes, None]:
    """A part of a turn as a response's events, after a sequence number."""
    stream = ResponseStream(turn, view.public(turn.conversation_id), number)

    def frames(events: Iterator[dict[str, Any]]) -> bytes:
        return b"".join(
            frame(event, event=event["type"])
            for event in events
            if event["sequence_number"] > after
        )

    def interrupted(code: str, why: str) -> bytes:
        # Not an event of the response, so it repeats the sequence number to resume from.
        last = max(after, stream.sequence)
        message = (
            f"{why}; the response continues: GET "
            f"/v1/responses/{response_id(turn.turn_id, number)}?stream=true&starting_after={last}"
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
        async with aclosing(view.follow(turn.turn_id, -1, fresh=fresh)) as following:
            async for found in following:
                if isinstance(found, Closed):
                    yield interrupted("stream_interrupted", CLOSED[found])
                    return
                fed, ends = _fed(stream, found)
                chunks = [frames(iter(made)) + _told(event) for event, made in fed]
                if ends:
                    # Read the turn, because its last event lacks some data of the final object.
                    now = await view.turn(turn.turn_id)
                    chunks.append(frames(stream.ending(await read_part(view, now, number))))
                if chunk := b"".join(chunks):
                    yield chunk
                elif not found:
                    yield SIGN_OF_LIFE
                if ends:
                    return
    except Exception as error:
        problem = stream_problem(error, view.tenant, turn.turn_id)
        yield interrupted(problem.code or "internal", problem.message)


def _fed(
    stream: ResponseStream | ChatStream, events: Sequence[Event]
) -> tuple[list[tuple[Event, list[dict[str, Any]]]], bool]:
    """Translate each event up to the end of the part; yields the results, and whether the part
    ended."""
    made: list[tuple[Event, list[dict[str, Any]]]] = []
    for event in events:
        if event.type.ends:
            return made, True
        made.append((event, list(stream.feed(event))))
        if stream.ended:
            return made, True
    return made, False


async def chat_stream(
    view: TenantView, turn: Turn, *, include_usage: bool, number: int = 0
) -> AsyncGenerator[bytes, None]:
    """A part of a turn as the chunks of a chat completion."""
    stream = ChatStream(turn, include_usage=include_usage, number=number)
    yield frame(stream.opening())
    try:
        async with aclosing(view.follow(turn.turn_id, -1, fresh=not number)) as following:
            async for found in following:
                if isinstance(found, Closed):
                    yield frame(_error("stream_interrupted", f"{CLOSED[found]}; {_where(turn)}"))
                    return
                fed, ends = _fed(stream, found)
                chunks = []
                for event, made in fed:
                    chunks += [*(frame(chunk) for chunk in made), _told(event)]
                if ends and not stream.broken:
                    now = await view.turn(turn.turn_id)
                    part = await read_part(view, now, number)
                    chunks += [frame(chunk) for chunk in stream.ending(part)]
                    if part.status is TurnStatus.COMPLETED and not stream.broken:
                        # Only for a completed turn, because clients take it as the sign of a
                        # complete text.
                        chunks.append(_DONE)
                if any(chunks) or not found:
                    yield b"".join(chunks) or SIGN_OF_LIFE
                if stream.broken:
                    why = f"the new text differs from the text sent so far; {_where(turn)}"
                    yield frame(_error("stream_restarted", why))
                    return
                if ends:
                    return
    except Exception as error:
        yield frame(stream_problem(error, view.tenant, turn.turn_id).body())


def _told(event: Event) -> bytes:
    """Report in a comment that the turn waits for a provider, because OpenAI's API has no event for
    it."""
    waits = wait_of(event)
    return b"" if waits is None else comment(waits)


def _where(turn: Turn) -> str:
    return f"the turn continues: read its reply with GET /v1/responses/{response_id(turn.turn_id)}"


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
