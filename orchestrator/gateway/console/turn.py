"""The page of one turn: its timeline, facts, steps, events and actions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from fastapi import Request, Response

from agentapi.errors import AgentAPIError, ServerUnavailable
from agentapi.stores import CancelOutcome
from agentapi.turns import Event, EventType, Turn, TurnStatus
from orchestrator.fork import ForkRequest, forkable_steps
from orchestrator.gateway.console.entries import conversation_address, turn_address
from orchestrator.gateway.console.flash import Flash
from orchestrator.gateway.console.pages import go_to, is_fragment, page
from orchestrator.gateway.console.picture import WIDTH, bars_of
from orchestrator.gateway.console.routing import Form, View, console_router, needs, operation_of
from orchestrator.gateway.console.view import ConsoleView
from orchestrator.gateway.http.errors import InvalidRequest, problem_of
from orchestrator.gateway.tenants.scopes import Scope
from orchestrator.gateway.turn_changes import fork_turn, retry_turn
from orchestrator.timeline import Timeline, TimelineStep

router = console_router()

EVENTS: Final = 100
"""Maximum events on a page, newest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventEntry:
    """An event, or several consecutive pieces of a model's text.

    Attributes:
        number: Number of the first event.
        last: Number of the last event.
        data: Data of the event, as JSON.
    """

    number: int
    last: int
    type: str
    data: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEntry:
    """A step with its messages, for viewers who may see them.

    Attributes:
        calls: The calls of a response: names, and arguments as JSON.
    """

    step: TimelineStep
    text: str
    calls: Sequence[tuple[str, str]]


@router.get("/turns/{turn_id}")
@needs(Scope.READ)
async def turn_page(request: Request, view: View, turn_id: str) -> Response:
    """A turn as a picture."""
    return await show(request, view, turn_id)


async def show(
    request: Request, view: ConsoleView, turn_id: str, *, status: int = 200, **form: Any
) -> Response:
    """The page of a turn.

    Args:
        request: The request.
        view: The viewer's view.
        turn_id: The turn.
        status: The HTTP status.
        form: The content of the fork form after a refused fork.
    """
    turn = await view.turn(turn_id)
    timeline = await view.timeline(turn.turn_id, fresh=not is_fragment(request))
    seen = max(-1, turn.last_event - EVENTS)
    events = await view.gateway.call(
        lambda o: o.store.events({turn.turn_id: seen}, 0).get(turn.turn_id, [])
    )
    content = view.viewer.content
    error = turn.error
    return page(
        request,
        "turn.html",
        fragment="_turn.html",
        status=status,
        here=turn_address(turn.turn_id),
        turn=turn,
        timeline=timeline,
        conversation=view.name_of(turn.conversation_id),
        conversation_address=conversation_address(turn.conversation_id),
        parent_address=turn_address(turn.parent_id) if turn.parent_id else None,
        origin_address=turn_address(turn.forked_from.turn_id) if turn.forked_from else None,
        error_text=view.public(error.message, error.code) if error and content else None,
        metadata=orjson.dumps(dict(turn.metadata)).decode() if content and turn.metadata else None,
        bars=bars_of(timeline),
        width=WIDTH,
        steps=[_step(step) for step in timeline.steps] if content else [],
        reply=_reply(turn, timeline, events) if content else "",
        # Newest first, because viewers watch what happens now.
        events=[_event(each, content=content) for each in reversed(_joined(events))],
        more_events=seen >= 0,
        may_change=view.viewer.may(Scope.TURNS, Scope.OPERATE),
        fork_steps=_fork_steps(timeline),
        operation=uuid.uuid4().hex,
        **{"fork_step": 0, "fork_message": turn.input if content else "", "refused": None, **form},
    )


def _fork_steps(timeline: Timeline) -> list[tuple[int, str]]:
    """Descriptions of the steps at which a fork can begin."""
    names = {
        step.index: f"the model call at step {step.index} ({step.name or 'unknown model'})"
        for step in timeline.steps
    }
    return [
        (number, "the beginning" if number == 0 else names.get(number, "the last step"))
        for number in forkable_steps(timeline)
    ]


def _step(step: TimelineStep) -> StepEntry:
    said: Mapping[str, Any] = step.message or {}
    calls = [
        (str(call["name"]), orjson.dumps(call["arguments"], option=orjson.OPT_INDENT_2).decode())
        for call in said.get("tool_calls", ())
    ]
    return StepEntry(step=step, text=str(said.get("content", "")), calls=calls)


_SAID: Final = {EventType.DELTA: "text", EventType.CALL_DELTA: "arguments"}
"""Fields of events that contain text of models."""


def _reply(turn: Turn, timeline: Timeline, events: Sequence[Event]) -> str:
    """The turn's reply, or the text so far."""
    if turn.status is TurnStatus.COMPLETED:
        last = timeline.steps[-1] if timeline.steps else None
        return _step(last).text if last is not None else ""
    said: list[str] = []
    for event in events:
        if event.type is EventType.DELTA:
            said.append(str(event.data.get("text", "")))
        else:
            # The text belongs to a recorded step or to a lost attempt.
            said.clear()
    return "" if turn.status.ended else "".join(said).strip()


def _joined(events: Sequence[Event]) -> list[tuple[Event, int]]:
    """Join consecutive pieces of text into one event; returns each with the number of its last
    piece."""
    found: list[tuple[Event, int]] = []
    for event in events:
        before = found[-1][0] if found else None
        if event.type is EventType.DELTA and before is not None and before.type is event.type:
            text = str(before.data.get("text", "")) + str(event.data.get("text", ""))
            found[-1] = replace(before, data={**before.data, "text": text}), event.number
        else:
            found.append((event, event.number))
    return found


def _event(joined: tuple[Event, int], *, content: bool) -> EventEntry:
    event, last = joined
    data = dict(event.data)
    field = _SAID.get(event.type)
    if field in data and not content:
        data[field] = f"({len(str(data[field]))} characters)"
    if event.type is EventType.FAILED and not content:
        data.pop("message", None)
    if event.type is EventType.STARTED:
        data.pop("worker", None)
    text = orjson.dumps(data).decode()
    return EventEntry(number=event.number, last=last, type=event.type.value, data=text)


@router.post("/turns/{turn_id}/cancel")
@needs(Scope.TURNS, Scope.OPERATE)
async def cancel(request: Request, view: View, turn_id: str) -> Response:
    """Cancel the turn."""
    turn = await view.turn(turn_id)
    outcome = await view.gateway.call(lambda o: o.cancel(turn.turn_id))
    said = {
        CancelOutcome.CANCELLED: Flash(text="The turn was cancelled."),
        CancelOutcome.REQUESTED: Flash(text="The turn's worker has been told to stop it."),
        CancelOutcome.ENDED: Flash(text="Too late: the turn has already ended.", kind="failed"),
    }
    return go_to(request, turn_address(turn.turn_id), said[outcome])


@router.post("/turns/{turn_id}/retry")
@needs(Scope.TURNS, Scope.OPERATE)
async def retry(request: Request, view: View, turn_id: str) -> Response:
    """Run the failed turn again from its last recorded step."""
    turn = await view.turn(turn_id)
    here = turn_address(turn.turn_id)
    if turn.status is not TurnStatus.FAILED:
        text = f"The turn is {turn.status.value}: only a failed turn can be retried."
        return go_to(request, here, Flash(text=text, kind="failed"))
    await retry_turn(view.gateway, turn.tenant_id, turn.turn_id, turn.conversation_id)
    return go_to(request, here, Flash(text="The turn is queued again."))


@router.post("/turns/{turn_id}/fork")
@needs(Scope.TURNS, Scope.OPERATE)
async def fork(request: Request, view: View, turn_id: str, form: Form) -> Response:
    """Run the turn again from one of its steps. A form that is posted twice creates one fork."""
    turn = await view.turn(turn_id)
    operation, step = operation_of(form), form.get("step", "0")
    if not step.isascii() or not step.isdigit():
        raise InvalidRequest("the form is incomplete: reload the page", param="step")
    message = form.get("message", "")
    wanted = ForkRequest(
        turn_id=turn.turn_id,
        step=int(step[:9]),
        message=_edited(turn, message),
        key=f"console:{operation}",
        by=view.viewer.name,
    )
    try:
        forked = await fork_turn(view.gateway, turn.tenant_id, wanted)
    except ServerUnavailable:
        raise
    except AgentAPIError as error:
        problem = problem_of(error)
        return await show(
            request,
            view,
            turn_id,
            status=problem.status,
            refused=view.public(problem.message, problem.code),
            fork_step=wanted.step,
            fork_message=message,
        )
    text = "The turn is running again in a copy of its conversation. This page shows the copy."
    return go_to(request, turn_address(forked), Flash(text=text))


def _edited(turn: Turn, message: str) -> str | None:
    """The message of a form; None if it is empty or unchanged."""
    same = not message.strip() or message == turn.input.replace("\r\n", "\n")
    return None if same else message
