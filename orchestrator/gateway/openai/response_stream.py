"""A turn's events as the events of a response: a pure function.

The same events always give the same stream with the same sequence numbers, so a client may read a
stream again from any number, through any gateway.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentapi.conversation.finish import FinishReason
from agentapi.turns import Event, EventType, Turn, TurnStatus
from orchestrator.gateway.ids import (
    call_item_id,
    function_call_id,
    function_item_id,
    text_item_id,
)
from orchestrator.gateway.openai.endings import goes_on, is_cut
from orchestrator.gateway.openai.items import (
    bare_call_item,
    bare_function_item,
    same_json,
    text_item,
    text_part,
)
from orchestrator.gateway.openai.objects import response_object
from orchestrator.gateway.openai.part_bounds import PartBounds, is_response
from orchestrator.gateway.openai.parts import Part, ends_of, first_response, was_streamed
from orchestrator.gateway.turn_labels import labels_of


@dataclass(kw_only=True)
class _Call:
    item_id: str
    index: int
    name: str
    status: str = "incomplete"


@dataclass(kw_only=True)
class _Function:
    item: dict[str, Any]
    index: int
    shown: str = ""


@dataclass(kw_only=True)
class _Text:
    item_id: str
    index: int
    refusal: bool
    shown: str = ""


class ResponseStream:
    """Translates a turn's events to OpenAI's. Each method returns the next numbered events.

    Attributes:
        sequence: Number of the newest event; -1 before the first.
    """

    def __init__(self, turn: Turn, conversation_id: str, number: int = 0) -> None:
        """Start before the first event.

        Args:
            turn: The turn, in any state: only its constant fields are used.
            conversation_id: The public id of its conversation.
            number: The part of the turn that is the response.
        """
        self._turn = turn
        self._bounds = PartBounds(turn, number)
        self._number = number
        self._streamed = was_streamed(turn, number)
        self._elsewhere = labels_of(turn).approvals_elsewhere
        self._functions: dict[str, _Function] = {}
        self._later: set[str] = set()
        self._conversation_id = conversation_id
        self.sequence = -1
        self._begun = False
        self._texts = 0
        self._responses = first_response(turn)
        self._items = 0
        self._open: _Text | None = None
        self._part = ""
        self._calls: dict[str, _Call] = {}

    @property
    def ended(self) -> bool:
        """Whether the part has ended because the turn asks its client."""
        return self._bounds.passed > self._number

    def opening(self) -> Iterator[dict[str, Any]]:
        """The first events of every stream."""
        yield self._event("response.created", response=self._snapshot("queued"))
        if labels_of(self._turn).background:
            yield self._event("response.queued", response=self._snapshot("queued"))

    def feed(self, event: Event) -> Iterator[dict[str, Any]]:
        """The events for an event that does not end the turn."""
        if not self._bounds.within(event):
            if event.type is EventType.STEP and is_response(event):
                self._responses += 1
            return
        match event.type:
            # Only once, although each attempt of a turn starts it again.
            case EventType.STARTED if not self._begun:
                self._begun = True
                yield self._event("response.in_progress", response=self._snapshot("in_progress"))
            case EventType.DELTA:
                refusal = bool(event.data.get("refusal"))
                yield from self._delta(str(event.data["text"]), refusal=refusal)
            case EventType.RESET:
                # The text sent so far is discarded: its item ends as incomplete and is not part of
                # the response. The text that replaces it gets an item of its own.
                yield from self._close("incomplete")
                yield from self._discard_functions()
            case EventType.CALL_DELTA if self._streamed:
                yield from self._function_delta(event.data)
            case EventType.STEP if self._streamed:
                yield from self._step(event.data)
            case _:
                pass

    def ending(self, part: Part) -> Iterator[dict[str, Any]]:
        """The events for the part's end.

        Args:
            part: The part as it ended.
        """
        final = response_object(part, self._conversation_id)
        if part.status is TurnStatus.COMPLETED:
            yield from self._rest(part)
            kind = "incomplete" if is_cut(part.finish_reason) else "completed"
            yield self._event(f"response.{kind}", response=final)
            return
        yield from self._close("incomplete")
        yield from self._discard_functions()
        for call in self._calls.values():
            item = bare_call_item(call.item_id, call.name, call.status)
            yield self._event("response.output_item.done", output_index=call.index, item=item)
        # OpenAI has no event for a cancelled response.
        kind = "failed" if part.status is TurnStatus.FAILED else "incomplete"
        yield self._event(f"response.{kind}", response=final)

    def _delta(self, text: str, *, refusal: bool = False) -> Iterator[dict[str, Any]]:
        # Parts of this reply that were recorded before a reset are not produced again.
        before = self._part
        if self._open is not None and self._open.refusal is not refusal:
            before = self._open.shown
            yield from self._close("incomplete")
        if self._open is None:
            text = before + text
            yield from self._open_text(refusal=refusal)
        if self._open is not None:
            self._open.shown += text
            yield self._text_event("delta", self._open, delta=text)

    def _open_text(self, *, refusal: bool) -> Iterator[dict[str, Any]]:
        # The item of a discarded text keeps its id, so the next item needs another.
        again = f"_{self._texts}" if self._texts else ""
        item_id = text_item_id(self._turn.turn_id, self._responses) + again
        self._open = _Text(item_id=item_id, index=self._next_index(), refusal=refusal)
        item = text_item(item_id, None, "in_progress")
        yield self._event("response.output_item.added", output_index=self._open.index, item=item)
        yield self._event(
            "response.content_part.added",
            item_id=item_id,
            output_index=self._open.index,
            content_index=0,
            part=text_part("", refusal=refusal),
        )

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        if self._open is None:
            return
        text, self._open = self._open, None
        self._texts += status == "incomplete"
        whole = {"refusal" if text.refusal else "text": text.shown}
        yield self._text_event("done", text, **whole)
        yield self._event(
            "response.content_part.done",
            item_id=text.item_id,
            output_index=text.index,
            content_index=0,
            part=text_part(text.shown, refusal=text.refusal),
        )
        item = text_item(text.item_id, text.shown, status, refusal=text.refusal)
        yield self._event("response.output_item.done", output_index=text.index, item=item)

    def _text_event(self, kind: str, item: _Text, **more: str) -> dict[str, Any]:
        part = "refusal" if item.refusal else "output_text"
        probabilities: dict[str, Any] = {} if item.refusal else {"logprobs": []}
        return self._event(
            f"response.{part}.{kind}",
            item_id=item.item_id,
            output_index=item.index,
            content_index=0,
            **probabilities,
            **more,
        )

    def _step(self, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        calls = list(zip(data.get("calls", ()), data["tools"], strict=False))
        if data["kind"] == "model" and data.get("rejected"):
            # Not part of the response, because the model is asked again.
            yield from self._close("incomplete")
            self._part = ""
            return
        if data["kind"] == "model" and goes_on(data):
            # The text continues in the next step, and this much of it will not be produced again.
            self._part = self._open.shown if self._open is not None else self._part
            return
        if data["kind"] == "model":
            # A response that also calls tools may have been cut off.
            yield from self._close("incomplete" if data.get("finish_reason") else "completed")
            self._texts, self._part = 0, ""
            self._responses += 1
            # The client's own calls, and those to approve, are shown when the turn asks.
            self._later = set() if self._elsewhere else {*data.get("held", ())}
            for call_id, name in calls:
                if call_id not in data.get("client", ()) and call_id not in self._later:
                    yield from self._open_call(call_id, name)
            return
        kind = "failed" if data.get("failed") else "completed"
        for call_id, name in calls:
            if call_id in self._bounds.approvals or call_id in self._later:
                yield from self._open_call(call_id, name)
            call = self._calls.get(call_item_id(self._turn.turn_id, call_id))
            if call is not None:
                call.status = kind
                yield self._call_event(kind, call.item_id, call.index)

    def _open_call(self, call_id: str, name: str) -> Iterator[dict[str, Any]]:
        index = self._next_index()
        item_id = call_item_id(self._turn.turn_id, call_id)
        self._calls[item_id] = _Call(item_id=item_id, index=index, name=name)
        item = bare_call_item(item_id, name, "in_progress")
        yield self._event("response.output_item.added", output_index=index, item=item)
        yield self._call_event("in_progress", item_id, index)

    def _function_delta(self, data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        call_id = function_call_id(self._turn.turn_id, self._responses, int(data["index"]))
        function = self._functions.get(function_item_id(call_id))
        if function is None:
            yield from self._close("completed")
            function = yield from self._open_function(call_id, str(data["tool"]))
        yield from self._function_piece(function, str(data["arguments"]))

    def _open_function(self, call_id: str, name: str) -> Generator[dict[str, Any], None, _Function]:
        item = bare_function_item(call_id, name, "in_progress")
        function = _Function(item=item, index=self._next_index())
        self._functions[item["id"]] = function
        yield self._event("response.output_item.added", output_index=function.index, item=item)
        return function

    def _function_piece(self, function: _Function, piece: str) -> Iterator[dict[str, Any]]:
        function.shown += piece
        yield self._event(
            "response.function_call_arguments.delta",
            item_id=function.item["id"],
            output_index=function.index,
            delta=piece,
        )

    def _close_function(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The remaining events of a function call."""
        function = self._functions.pop(item["id"], None)
        if function is None:
            function = yield from self._open_function(item["call_id"], item["name"])
            del self._functions[item["id"]]
        if same_json(function.shown, item["arguments"]):
            item = {**item, "arguments": function.shown}
        arguments = item["arguments"]
        # A hook may have changed the arguments. The last event has their final form.
        if arguments.startswith(function.shown) and len(arguments) > len(function.shown):
            yield from self._function_piece(function, arguments[len(function.shown) :])
        yield self._event(
            "response.function_call_arguments.done",
            item_id=item["id"],
            output_index=function.index,
            name=item["name"],
            arguments=arguments,
        )
        yield self._event("response.output_item.done", output_index=function.index, item=item)

    def _discard_functions(self) -> Iterator[dict[str, Any]]:
        for function in self._functions.values():
            item = {**function.item, "status": "incomplete", "arguments": function.shown}
            yield self._event("response.output_item.done", output_index=function.index, item=item)
        self._functions.clear()

    def _call_event(self, kind: str, item_id: str, index: int) -> dict[str, Any]:
        return self._event(f"response.mcp_call.{kind}", item_id=item_id, output_index=index)

    def _rest(self, part: Part) -> Iterator[dict[str, Any]]:
        """The output of a completed part that has not been sent yet."""
        responses = part.responses()
        if self._streamed and responses and responses[-1][0] >= self._responses:
            # The reply is not a recorded step, so no event has closed its text.
            yield from self._last_text(part)
        for item in part.output():
            if call := self._calls.get(item["id"]):
                yield self._event("response.output_item.done", output_index=call.index, item=item)
            elif item["type"] == "function_call":
                yield from self._close_function(item)
            elif not self._streamed or item["type"] == "mcp_approval_request":
                yield from self._whole(item)

    def _last_text(self, part: Part) -> Iterator[dict[str, Any]]:
        text = part.text
        refusal = part.finish_reason is FinishReason.REFUSAL
        shown = self._open.shown if self._open is not None else ""
        other = self._open is not None and self._open.refusal is not refusal
        # The turn ended differently from the text shown, for example because a hook changed it.
        if other or not text.startswith(shown):
            yield from self._close("incomplete")
            shown = ""
        self._part = ""
        if len(text) > len(shown):
            yield from self._delta(text[len(shown) :], refusal=refusal)
        yield from self._close("incomplete" if is_cut(part.finish_reason) else "completed")

    def _whole(self, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """All events of an item whose text was not streamed."""
        index = self._next_index()
        if item["type"] == "message":
            [content] = item["content"]
            refusal = content["type"] == "refusal"
            text = _Text(item_id=item["id"], index=index, refusal=refusal)
            empty = text_item(item["id"], None, "in_progress")
            yield self._event("response.output_item.added", output_index=index, item=empty)
            place = {"item_id": item["id"], "output_index": index, "content_index": 0}
            part = text_part("", refusal=refusal)
            yield self._event("response.content_part.added", **place, part=part)
            self._open = text
            yield from self._delta(content["refusal" if refusal else "text"], refusal=refusal)
            yield from self._close(item["status"])
            return
        bare = item
        if item["type"] == "mcp_call":
            bare = bare_call_item(item["id"], item["name"], "in_progress")
        yield self._event("response.output_item.added", output_index=index, item=bare)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _next_index(self) -> int:
        self._items += 1
        return self._items - 1

    def _snapshot(self, status: str) -> dict[str, Any]:
        blank: dict[str, Any] = {
            "status": status,
            "output": [],
            "usage": None,
            "error": None,
            "completed_at": None,
        }
        ends = ends_of(self._turn)
        part = Part(
            turn=self._turn,
            number=self._number,
            begins=ends[self._number - 1] if self._number else None,
            ends=None,
            made=(),
        )
        return {**response_object(part, self._conversation_id), **blank}

    def _event(self, kind: str, **data: Any) -> dict[str, Any]:
        self.sequence += 1
        return {"type": kind, "sequence_number": self.sequence, **data}
