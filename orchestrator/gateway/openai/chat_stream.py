"""A turn's events as the chunks of a chat completion.

A chat completion cannot retract text. When a worker is lost, another one produces the text again.
The stream skips the text that it has already sent; if the new text differs, the stream is broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentapi.conversation.finish import FinishReason
from agentapi.turns import Event, EventType, Turn, TurnStatus
from orchestrator.gateway.ids import function_call_id
from orchestrator.gateway.openai.endings import chat_error, goes_on
from orchestrator.gateway.openai.items import same_json
from orchestrator.gateway.openai.objects import chat_finish, chat_id, chat_usage
from orchestrator.gateway.openai.part_bounds import PartBounds, is_response
from orchestrator.gateway.openai.parts import Part, first_response


@dataclass(kw_only=True)
class _Call:
    index: int
    shown: str
    again: str | None = None


class ChatStream:
    """Translates events to chunks.

    Attributes:
        broken: Whether text that was produced again differs from the text sent before.
    """

    def __init__(self, turn: Turn, *, include_usage: bool, number: int = 0) -> None:
        """Start before the first event.

        Args:
            turn: The turn, in any state.
            include_usage: Whether the last chunk has the tokens.
            number: The part of the turn that is the completion.
        """
        self._turn = turn
        self._number = number
        self._bounds = PartBounds(turn, number)
        self._responses = first_response(turn)
        self._calls: dict[str, _Call] = {}
        self._include_usage = include_usage
        self.broken = False
        self._shown = ""
        self._part = ""
        self._again: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the part has ended because the turn asks its client."""
        return self._bounds.passed > self._number

    def opening(self) -> dict[str, Any]:
        """The first chunk, with the role."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def feed(self, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks for an event that does not end the turn."""
        if not self._bounds.within(event):
            self._responses += event.type is EventType.STEP and is_response(event)
            return
        match event.type:
            case EventType.DELTA:
                key = "refusal" if event.data.get("refusal") else "content"
                yield from self._delta(str(event.data["text"]), key)
            case EventType.RESET:
                # The text is produced again, so compare it instead of sending it until it is longer
                # than before. Recorded parts are not produced again.
                self._again = self._part
                for call in self._calls.values():
                    call.again = ""
            case EventType.CALL_DELTA:
                yield from self._call_delta(event.data)
            case EventType.STEP if event.data["kind"] == "model" and not event.data.get("rejected"):
                self.broken = self.broken or self._again not in (None, self._shown)
                self._part = self._shown = self._shown if goes_on(event.data) else ""
                self._again = None
                self._responses += is_response(event)
            case _:
                pass

    def ending(self, part: Part) -> Iterator[dict[str, Any]]:
        """The chunks for the part's end: the rest and the last chunk, or an error.

        Args:
            part: The part as it ended.
        """
        if part.status is not TurnStatus.COMPLETED:
            yield chat_error(part.turn)
            return
        responses, text = part.responses(), part.text
        # The text of a response with calls was recorded and has already been sent.
        if not responses or responses[-1][0] >= self._responses or not self._turn.stream:
            if text.startswith(self._shown):
                if len(text) > len(self._shown):
                    key = "refusal" if part.finish_reason is FinishReason.REFUSAL else "content"
                    yield self._chunk({key: text[len(self._shown) :]})
            elif self._again is not None:
                self.broken = True
                return
        calls = part.calls()
        for item in calls:
            yield from self._last_of_call(item)
        if self.broken:
            return
        yield self._chunk({}, finish=chat_finish(part))
        if self._include_usage:
            yield {**self._head(), "choices": [], "usage": chat_usage(part.usage)}

    def _call_delta(self, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        place = int(data["index"])
        call_id = function_call_id(self._turn.turn_id, self._responses, place)
        yield from self._call_piece(call_id, str(data["tool"]), str(data["arguments"]))

    def _call_piece(self, call_id: str, name: str, piece: str) -> Iterator[dict[str, Any]]:
        call = self._calls.get(call_id)
        if call is None:
            call = self._calls[call_id] = _Call(index=len(self._calls), shown="")
            first = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
            yield self._chunk({"tool_calls": [{"index": call.index, **first}]})
        if call.again is not None:
            # After a lost worker the model calls again: only new pieces are sent.
            call.again += piece
            if not call.again.startswith(call.shown):
                self.broken = self.broken or not call.shown.startswith(call.again)
                return
            piece, call.again = call.again[len(call.shown) :], None
        if piece:
            call.shown += piece
            more = {"index": call.index, "function": {"arguments": piece}}
            yield self._chunk({"tool_calls": [more]})

    def _last_of_call(self, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        known = self._calls.get(item["call_id"])
        shown = known.shown if known is not None else ""
        if known is not None and same_json(shown, item["arguments"]):
            return
        if not item["arguments"].startswith(shown):
            self.broken = True
            return
        if known is not None:
            known.again = None
        yield from self._call_piece(item["call_id"], item["name"], item["arguments"][len(shown) :])

    def _delta(self, text: str, key: str) -> Iterator[dict[str, Any]]:
        if self._again is None:
            self._shown += text
            yield self._chunk({key: text})
            return
        self._again += text
        if self._again.startswith(self._shown):
            new = self._again[len(self._shown) :]
            self._shown, self._again = self._again, None
            if new:
                yield self._chunk({key: new})
        elif not self._shown.startswith(self._again):
            self.broken = True

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._head(), "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage else chunk

    def _head(self) -> dict[str, Any]:
        return {
            "id": chat_id(self._turn.turn_id, self._number),
            "object": "chat.completion.chunk",
            "created": int(self._turn.created_at),
            "model": self._turn.agent,
        }
