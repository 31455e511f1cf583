"""Enqueueing with a span for each turn, whose context is stored with the turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agentapi.errors import AgentAPIError
from agentapi.stores.answers import Accepted, Refused
from agentapi.stores.protocol import ProducerStore
from agentapi.tracing import Kind, NewSpan, Span, Traces, traces
from agentapi.tracing import names as n
from agentapi.tracing.context import TraceContext, attempt_of, context_from
from agentapi.turns import NewTurn, Turn

_INTERNAL: Final = "internal"


def enqueue_traced(
    store: ProducerStore, turns: Sequence[NewTurn], *, cause: Turn | None = None
) -> list[Accepted | Refused]:
    """Enqueue turns; see `ProducerStore.enqueue`.

    Args:
        store: The store.
        turns: The turns.
        cause: The turn that causes them; if None, they belong to the current span.
    """
    made = traces()
    if not made.on:
        return store.enqueue(turns)
    spans = [_begin(made, turn, cause) for turn in turns]
    carried = [
        turn if (context := span.context) is None else replace(turn, trace=context.text)
        for turn, span in zip(turns, spans, strict=True)
    ]
    try:
        answers = store.enqueue(carried)
        for span, answer in zip(spans, answers, strict=True):
            _answered(span, answer)
        return answers
    except BaseException as error:
        code = error.code if isinstance(error, AgentAPIError) else _INTERNAL
        for span in spans:
            span.fail(code)
        raise
    finally:
        for span in spans:
            span.end()


def _begin(made: Traces, turn: NewTurn, cause: Turn | None) -> Span:
    attributes: dict[str, str | int] = {
        n.OPERATION: n.ENQUEUE,
        n.AGENT: turn.agent,
        n.CONVERSATION: turn.conversation_id,
        n.SESSION: turn.conversation_id,
        n.TURN: turn.turn_id,
    }
    name = f"{n.ENQUEUE} {turn.agent}"
    if cause is None:
        return made.start(NewSpan(name=name, kind=Kind.PRODUCER, attributes=attributes))
    attributes[n.PARENT] = cause.turn_id
    attempt = attempt_of(cause.turn_id, cause.attempt, cause.trace)
    known = context_from(cause.trace) is not None
    return made.start(
        NewSpan(
            name=name,
            kind=Kind.PRODUCER,
            attributes=attributes,
            parent=attempt if known else None,
            # It is not known here whether that attempt is recorded, so the sampler decides again.
            # It decides the same for the same trace.
            own=None if known else _beside(attempt, turn),
            links=[] if known else [attempt],
        )
    )


def _beside(attempt: TraceContext, turn: NewTurn) -> TraceContext:
    """A span of the same trace, with an id derived from the turn."""
    return replace(attempt, span_id=attempt_of(turn.turn_id, 0, None).span_id)


def _answered(span: Span, answer: Accepted | Refused) -> None:
    if not span.on:
        return
    if isinstance(answer, Accepted):
        # Differs from the requested turn if the message joins a waiting turn.
        span.set({n.TURN: answer.turn_id, n.CREATED: answer.created})
    else:
        span.fail(answer.code)
