"""The queue of waiting calls, and the page on which one is decided."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import orjson
from fastapi import Query, Request, Response

from agentapi.conversation.messages import Message
from agentapi.errors import (
    AgentAPIError,
    CallNotPending,
    ServerUnavailable,
    TurnNotFound,
    UnreadableRecord,
)
from agentapi.stores import TurnQuery
from agentapi.turns import Decision, ModelStep, PendingCall, Turn, Verdict
from orchestrator.gateway.console.entries import conversation_address, turn_address
from orchestrator.gateway.console.flash import Flash
from orchestrator.gateway.console.pages import go_to, is_fragment, page
from orchestrator.gateway.console.routing import Form, View, console_router, needs
from orchestrator.gateway.console.security import ROOT
from orchestrator.gateway.console.view import ConsoleView
from orchestrator.gateway.http.errors import InvalidRequest, problem_of
from orchestrator.gateway.tenants.scopes import Scope
from orchestrator.timeline import Approval

router = console_router()

PATH: Final = f"{ROOT}/approvals"
PAGE: Final = 25

EXCERPT: Final = 4
"""Number of earlier messages of the conversation that are shown as context."""

_TURN_ID: Final = re.compile(r"\d{3}-[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallEntry:
    """A waiting call, as its viewer may see it.

    Attributes:
        address: The page on which it is decided.
        left: Seconds until `default` becomes the decision; None for never.
        arguments: JSON, for viewers who may see it.
        asked: The user's message, for viewers who may see it.
    """

    address: str
    call_id: str
    turn_id: str
    turn_address: str
    agent: str
    tool: str
    conversation: str
    conversation_address: str
    expires_at: float | None
    left: float | None
    default: str
    arguments: str | None
    asked: str | None = None


def call_address(turn_id: str, call_id: str) -> str:
    """The page on which a call is decided. Models choose the ids of calls."""
    return f"{ROOT}/approval?{urlencode({'turn': turn_id, 'call': call_id})}"


@router.get("/approvals")
@needs(Scope.READ)
async def approvals_page(
    request: Request, view: View, cursor: Annotated[str | None, Query(max_length=4096)] = None
) -> Response:
    """Calls that wait for a decision, newest turns first."""
    found = await view.approvals(TurnQuery(), PAGE, cursor, fresh=not is_fragment(request))
    entries = await asyncio.gather(*(_with_message(view, call) for call in found.items))
    query = {"cursor": cursor} if cursor else {}
    return page(
        request,
        "approvals.html",
        fragment="_approvals.html",
        gap=view.gap(found),
        calls=entries,
        here=f"{PATH}?{urlencode(query)}" if query else PATH,
        first=PATH if cursor else None,
        next=f"{PATH}?{urlencode({'cursor': found.cursor})}" if found.cursor else None,
        may_change=view.viewer.may(Scope.TURNS, Scope.OPERATE),
    )


async def _with_message(view: ConsoleView, call: PendingCall) -> CallEntry:
    asked = None
    if view.viewer.content:
        try:
            asked = (await view.turn(call.turn_id)).input
        except (TurnNotFound, UnreadableRecord):
            asked = None
    return _entry(view, call, asked)


def _entry(view: ConsoleView, call: PendingCall, asked: str | None) -> CallEntry:
    content = view.viewer.content
    return CallEntry(
        address=call_address(call.turn_id, call.call_id),
        call_id=call.call_id,
        turn_id=call.turn_id,
        turn_address=turn_address(call.turn_id),
        agent=call.agent,
        tool=call.tool,
        conversation=view.name_of(call.conversation_id),
        conversation_address=conversation_address(call.conversation_id),
        expires_at=call.expires_at,
        left=None if call.expires_at is None else max(0.0, call.expires_at - time.time()),
        default=call.default.value,
        arguments=_json(call.arguments) if content else None,
        asked=asked,
    )


@router.get("/approval")
@needs(Scope.READ)
async def approval_page(
    request: Request,
    view: View,
    turn: Annotated[str, Query(max_length=64)],
    call: Annotated[str, Query(max_length=512)],
) -> Response:
    """One call with its context, and who decided about it once it is decided."""
    return await _show(request, view, turn, call)


async def _show(
    request: Request,
    view: ConsoleView,
    turn_id: str,
    call_id: str,
    *,
    status: int = 200,
    refused: str | None = None,
    **form: str,
) -> Response:
    turn = await view.turn(turn_id)
    fresh = refused is not None or not is_fragment(request)
    timeline = await view.timeline(turn.turn_id, fresh=fresh)
    known = next((each for each in timeline.approvals if each.call_id == call_id), None)
    waiting = await view.gateway.call(lambda o: o.store.calls.pending(turn.turn_id))
    open_call = next((each for each in waiting if each.call_id == call_id), None)
    content = view.viewer.content
    arguments = open_call.arguments if open_call else known.arguments if known else None
    shown = _json(arguments) if content and arguments is not None else None
    return page(
        request,
        "approval.html",
        fragment="_approval.html",
        status=status,
        here=call_address(turn.turn_id, call_id),
        call_id=call_id,
        turn=turn,
        turn_address=turn_address(turn.turn_id),
        conversation=view.name_of(turn.conversation_id),
        conversation_address=conversation_address(turn.conversation_id),
        call=None if open_call is None else _entry(view, open_call, None),
        tool=open_call.tool if open_call else known.tool if known else "",
        decided=known if known is not None and known.verdict is not None else None,
        known=known,
        edited=_json(known.edited) if content and known and known.edited is not None else None,
        shown_arguments=shown,
        schema=_json(open_call.schema) if open_call and open_call.schema and content else None,
        said=await _said(view, turn) if content else [],
        thought=await _thought(view, turn) if content and open_call else "",
        may_change=view.viewer.may(Scope.TURNS, Scope.OPERATE),
        refused=refused,
        **{"arguments": _editable(shown or ""), "reason": "", **form},
    )


async def _said(view: ConsoleView, turn: Turn) -> Sequence[Message]:
    """The newest messages of the conversation."""
    try:
        return await view.gateway.call(lambda o: o.store.slice(turn.conversation_id, -EXCERPT, -1))
    except UnreadableRecord:
        return []


async def _thought(view: ConsoleView, turn: Turn) -> str:
    """The model's text with its calls."""
    try:
        steps = await view.gateway.call(lambda o: o.store.steps(turn.turn_id))
    except UnreadableRecord:
        return ""
    responses = [step.message.content for step in steps if isinstance(step, ModelStep)]
    return responses[-1] if responses else ""


@router.post("/approval/decide")
@needs(Scope.TURNS, Scope.OPERATE)
async def decide(request: Request, view: View, form: Form) -> Response:
    """Decide about a call. A second decision is refused and shows who decided first."""
    turn_id, call_id = form.get("turn", ""), form.get("call", "")
    if not _TURN_ID.fullmatch(turn_id) or not call_id:
        raise InvalidRequest("the form is incomplete: reload the page", param="call")
    turn = await view.turn(turn_id)
    typed = {name: form[name] for name in ("arguments", "reason") if name in form}
    try:
        decision = _decision(form, view.viewer.name)
        await view.gateway.call(lambda o: o.decide(turn.turn_id, call_id, decision))
    except ServerUnavailable:
        raise
    except CallNotPending:
        known = await _decided(view, turn, call_id)
        return await _show(
            request, view, turn_id, call_id, status=409, refused=_too_late(known), **typed
        )
    except AgentAPIError as error:
        problem = problem_of(error)
        refused = view.public(problem.message, problem.code)
        return await _show(
            request, view, turn_id, call_id, status=problem.status, refused=refused, **typed
        )
    done = {Verdict.APPROVED: "approved", Verdict.REJECTED: "rejected"}
    text = f"The call is {done.get(decision.verdict, 'approved with other arguments')}."
    # Go to the call's page and not to the queue, because the page shows its state.
    where = PATH if form.get("from") == "queue" else call_address(turn.turn_id, call_id)
    return go_to(request, where, Flash(text=text))


def _decision(form: dict[str, str], by: str) -> Decision:
    verdict = form.get("verdict", "")
    if verdict == "approved":
        return Decision(verdict=Verdict.APPROVED, by=by)
    if verdict == "rejected":
        return Decision(verdict=Verdict.REJECTED, reason=form.get("reason") or None, by=by)
    if verdict != "edited":
        raise InvalidRequest("the form is incomplete: reload the page", param="verdict")
    try:
        arguments: Any = orjson.loads(form.get("arguments", ""))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"the arguments are not JSON: {error}; nothing was decided", param="arguments"
        ) from error
    if not isinstance(arguments, dict):
        raise InvalidRequest(
            "the arguments are not a JSON object; nothing was decided", param="arguments"
        )
    return Decision(verdict=Verdict.EDITED, arguments=arguments, by=by)


async def _decided(view: ConsoleView, turn: Turn, call_id: str) -> Approval | None:
    timeline = await view.timeline(turn.turn_id)
    found = (each for each in timeline.approvals if each.call_id == call_id)
    return next((each for each in found if each.verdict is not None), None)


def _too_late(known: Approval | None) -> str:
    if known is None:
        return "Nothing was decided: the call is not waiting for a decision, or its turn has ended."
    if known.by == "expiry":
        return "Nothing was decided: the time had already run out."
    return f"Nothing was decided: {known.by or 'somebody else'} decided first."


_INVISIBLE: Final = re.compile("[\x7f-\x9f\u200b\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


def _editable(text: str) -> str:
    """JSON with invisible and direction-changing characters escaped, so that they are visible."""
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
