"""A turn's events as the chunks of a chat completion.

A chat completion cannot take text back. When a worker is lost, another one produces the text again.
The stream leaves out what it has sent already; if the new text differs, it is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentapi.conversation.finish import FinishReason
from agentapi.conversation.messages import AssistantMessage
from agentapi.turns import Event, EventType, Turn, TurnStatus
from orchestrator.gateway.openai.endings import chat_error, chat_finish_reason, goes_on
from orchestrator.gateway.openai.objects import chat_id, chat_usage


class ChatStream:
    """Turns events into chunks.

    Attributes:
        broken: Whether text that was produced again differs from the text sent before.
    """

    def __init__(self, turn: Turn, *, include_usage: bool) -> None:
        """Begin before the first event.

        Args:
            turn: The turn, in any state.
            include_usage: Whether the last chunk has the tokens.
        """
        self._turn = turn
        self._include_usage = include_usage
        self.broken = False
        self._shown = ""
        self._part = ""
        self._again: str | None = None

    def opening(self) -> dict[str, Any]:
        """The first chunk, with the role."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def feed(self, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks for an event that does not end the turn."""
        match event.type:
            case EventType.DELTA:
                key = "refusal" if event.data.get("refusal") else "content"
                yield from self._delta(str(event.data["text"]), key)
            case EventType.RESET:
                # The text comes once more: it is compared instead of sent until it is longer than
                # before. A part that was recorded does not come again.
                self._again = self._part
            case EventType.STEP if event.data["kind"] == "model" and not event.data.get("rejected"):
                self.broken = self.broken or self._again not in (None, self._shown)
                self._part = self._shown = self._shown if goes_on(event.data) else ""
                self._again = None
            case _:
                pass

    def ending(self, turn: Turn) -> Iterator[dict[str, Any]]:
        """The chunks for the turn's end: the rest and the last chunk, or an error.

        Args:
            turn: The turn as it ended.
        """
        if turn.status is not TurnStatus.COMPLETED:
            yield chat_error(turn)
            return
        last = turn.messages[-1] if turn.messages else None
        text = last.content if isinstance(last, AssistantMessage) else ""
        if text.startswith(self._shown):
            if len(text) > len(self._shown):
                key = "refusal" if turn.finish_reason is FinishReason.REFUSAL else "content"
                yield self._chunk({key: text[len(self._shown) :]})
        elif self._again is not None:
            self.broken = True
            return
        yield self._chunk({}, finish=chat_finish_reason(turn))
        if self._include_usage:
            yield {**self._head(), "choices": [], "usage": chat_usage(turn.usage)}

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
            "id": chat_id(self._turn.turn_id),
            "object": "chat.completion.chunk",
            "created": int(self._turn.created_at),
            "model": self._turn.agent,
        }
