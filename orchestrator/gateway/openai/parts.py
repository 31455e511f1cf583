"""The parts of a turn, each of which OpenAI's API shows as one response.

A turn that asks its client for function outputs or approvals continues when the client answers. In
OpenAI's API the response that asks is complete, and the answer starts the next one. So such a turn
consists of several responses: the part until the first question, the part until the second, and so
on. Each has its own id, and never changes once it is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentapi.conversation.finish import FinishReason
from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentapi.engine.progress import TurnProgress
from agentapi.turns import ClientTools, RequestOptions, Segment, Turn, TurnStatus
from orchestrator.gateway.http.errors import NotFound
from orchestrator.gateway.ids import approval_id, function_call_id, text_item_id
from orchestrator.gateway.openai.items import (
    approval_item,
    call_item,
    function_item,
    items_of,
    reply_item,
)
from orchestrator.gateway.turn_labels import Labels, labels_in, labels_of, own_metadata
from orchestrator.gateway.view import TenantView


def ends_of(turn: Turn) -> list[Segment]:
    """The positions at which parts of a turn end because it asks its client."""
    if not turn.segments:
        return []
    elsewhere = labels_of(turn).approvals_elsewhere
    return [end for end in turn.segments if end.client or not elsewhere]


def first_response(turn: Turn) -> int:
    """The number of the turn's own first response, after those that its request supplied."""
    return sum(isinstance(message, AssistantMessage) for message in turn.prior)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a turn.

    Attributes:
        turn: The turn.
        number: The part's number, from 0.
        begins: The end of the previous part; None for the first.
        ends: Its own end, if it asked its client; None for the last.
        made: All known messages of the turn.
    """

    turn: Turn
    number: int
    begins: Segment | None
    ends: Segment | None
    made: Sequence[Message]

    @property
    def status(self) -> TurnStatus:
        """The part's status: complete if it asked its client."""
        return self.turn.status if self.ends is None else TurnStatus.COMPLETED

    @property
    def finish_reason(self) -> FinishReason | None:
        """How the part's last response ended; None if it asks its client or does not exist yet."""
        return self.turn.finish_reason if self.ends is None else None

    @property
    def labels(self) -> Labels:
        """How the part was requested."""
        turn = self.turn
        if not self.number:
            return labels_of(turn)
        return labels_in(turn, turn.parts.get(self.number, {}))

    @property
    def options(self) -> RequestOptions | None:
        """The options of the part's request."""
        data = self._before("options")
        return self.turn.options if data is None else RequestOptions.from_json(data.encode())

    @property
    def client_tools(self) -> ClientTools | None:
        """The functions that the part's request declared."""
        data = self._before("client_tools")
        return self.turn.client_tools if data is None else ClientTools.from_json(data)

    def _before(self, name: str) -> str | None:
        """The values that applied in the part, if a later request has changed them."""
        for number in sorted(self.turn.parts):
            before = labels_in(self.turn, self.turn.parts[number]).before
            if number > self.number and name in before:
                return before[name]
        return None

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the part's request."""
        turn = self.turn
        return own_metadata(turn.parts.get(self.number, {}) if self.number else turn.metadata)

    @property
    def usage(self) -> Usage:
        """Tokens of the part's model calls, once it has ended."""
        whole = self.ends.usage if self.ends is not None else self.turn.usage
        before = self.begins.usage if self.begins is not None else Usage()
        return Usage(
            input_tokens=whole.input_tokens - before.input_tokens,
            output_tokens=whole.output_tokens - before.output_tokens,
            cached_tokens=whole.cached_tokens - before.cached_tokens,
        )

    @property
    def created_at(self) -> float:
        """When the part began."""
        if self.begins is None:
            return self.turn.created_at
        return float(self.labels.at or self.begins.at)

    @property
    def ended_at(self) -> float | None:
        """When the part ended."""
        return self.turn.ended_at if self.ends is None else self.ends.at

    def responses(self) -> list[tuple[int, AssistantMessage]]:
        """The model's responses in the part, with their numbers in the turn."""
        offset = first_response(self.turn)
        first = offset + (self.begins.responses if self.begins is not None else 0)
        last = None if self.ends is None else offset + self.ends.responses
        return _numbered(self.made)[first:last]

    @property
    def text(self) -> str:
        """The text of the part's last response."""
        responses = self.responses()
        return responses[-1][1].content if responses else ""

    def calls(self) -> list[dict[str, Any]]:
        """The calls at the end of the part, as items."""
        responses = self.responses()
        if self.status is not TurnStatus.COMPLETED or not responses:
            return []
        return _functions(self.turn.turn_id, *responses[-1])

    def output(self) -> list[dict[str, Any]]:
        """The items of the part."""
        turn_id = self.turn.turn_id
        results = {m.call_id: m for m in self.made if isinstance(m, ToolMessage)}
        asked = set(self.ends.approvals) if self.ends is not None else set()
        items = [
            {
                **call_item(turn_id, call, results.get(call.id)),
                "approval_request_id": approval_id(turn_id, call.id),
            }
            for call in self._decided()
        ]
        for number, message in self.responses():
            if message.content:
                items.append(reply_item(text_item_id(turn_id, number), message))
            for place, call in enumerate(message.tool_calls):
                if call.client:
                    items.append(function_item(function_call_id(turn_id, number, place), call))
                elif call.id in asked:
                    items.append(approval_item(turn_id, call))
                else:
                    items.append(call_item(turn_id, call, results.get(call.id)))
        return items

    def input(self) -> list[dict[str, Any]]:
        """The items of the part's request: outputs, and the user's messages after them."""
        if self.begins is None:
            return []
        number = first_response(self.turn) + self.begins.responses
        places = [at for at, m in enumerate(self.made) if isinstance(m, AssistantMessage)]
        between = range(*[*places, len(self.made)][number - 1 : number + 1])
        return [
            found.item
            for found in items_of(self.made)
            if found.position in between and not isinstance(found.message, AssistantMessage)
        ]

    def _decided(self) -> list[Any]:
        """Calls that waited for an approval at the end of the previous part."""
        if self.begins is None or not self.begins.approvals:
            return []
        number = first_response(self.turn) + self.begins.responses - 1
        found = _numbered(self.made)[number : number + 1]
        return [c for _, m in found for c in m.tool_calls if c.id in self.begins.approvals]


def _numbered(messages: Sequence[Message]) -> list[tuple[int, AssistantMessage]]:
    return list(enumerate(m for m in messages if isinstance(m, AssistantMessage)))


def _functions(turn_id: str, number: int, message: AssistantMessage) -> list[dict[str, Any]]:
    return [
        function_item(function_call_id(turn_id, number, place), call)
        for place, call in enumerate(message.tool_calls)
        if call.client
    ]


async def read_part(view: TenantView, turn: Turn, number: int) -> Part:
    """Read a part of a turn.

    Args:
        view: The caller's view.
        turn: The turn.
        number: The part's number, from 0.

    Raises:
        NotFound: The turn has no such part yet.
        StoreUnavailable: Redis is out of reach.
    """
    ends = ends_of(turn)
    if number > len(ends) or (number and number == len(ends) and not await _begun(view, turn)):
        raise NotFound(
            f"there is no such response: turn {turn.turn_id} has {len(ends)} parts so far",
            code="response_not_found",
        )
    asks = number < len(ends)
    return Part(
        turn=turn,
        number=number,
        begins=ends[number - 1] if number else None,
        ends=ends[number] if asks else None,
        made=await messages_of_turn(view, turn, running=asks or number > 0),
    )


async def messages_of_turn(view: TenantView, turn: Turn, *, running: bool) -> Sequence[Message]:
    """All messages of a turn.

    Args:
        view: The caller's view.
        turn: The turn.
        running: Whether to also read the messages of a turn without a reply.

    Raises:
        StoreUnavailable: Redis is out of reach.
    """
    if turn.status is TurnStatus.COMPLETED:
        return turn.messages
    if not running:
        return ()
    user = UserMessage(content=turn.input, turn_id=turn.turn_id)
    steps = await view.steps(turn)
    return TurnProgress(user=user, prior=turn.prior, steps=steps).messages()


async def _begun(view: TenantView, turn: Turn) -> bool:
    """Whether the turn has continued after its last question to the client."""
    if turn.status is not TurnStatus.PARKED or len(ends_of(turn)) in turn.parts:
        return True
    # Others may have decided, but no worker has claimed the turn yet.
    return not any(call.turn_id == turn.turn_id for call in await view.pending(turn.turn_id))


def was_streamed(turn: Turn, number: int) -> bool:
    """Whether a part of a turn was requested as a stream."""
    following: Mapping[str, Any] | None = turn.parts.get(number + 1)
    if following is not None:
        return labels_in(turn, following).streamed
    return turn.stream
