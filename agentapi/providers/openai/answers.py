"""Converts chat completions, whole or in chunks, to a `ModelResponse`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from agentapi.conversation.finish import COMPLETE, FinishReason
from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.providers.answers import LONGEST_ANSWER, count
from agentapi.providers.base import CallDelta, ModelResponse
from agentapi.providers.openai.format import finish_reason, tool_call


class Unreadable(Exception):
    """The data is not a valid chat completion."""


class Aborted(Exception):
    """The server started an answer and ended it with an error."""


_ERROR: Final = "error"
"""OpenRouter's finish reason for an answer that its upstream provider did not complete."""

_CUT: Final = "length"


def response_from(data: object) -> ModelResponse:
    """Convert a complete answer.

    Raises:
        Unreadable: It is not a valid chat completion.
        Aborted: It ended with an error.
    """
    body = _object(data)
    choices = _list(body.get("choices"))
    if not choices:
        raise Unreadable
    choice = _object(choices[0])
    message = _object(choice.get("message"))
    finish = choice.get("finish_reason")
    wanted = _list(message.get("tool_calls"))
    # Only the last call can be cut off.
    calls = tuple(
        _call(call, cut=finish == _CUT and number == len(wanted))
        for number, call in enumerate(wanted, 1)
    )
    refusal = _text(message.get("refusal"))
    return _assembled(
        text=_text(message.get("content")) + refusal,
        calls=calls,
        finish=finish,
        usage=usage_from(body.get("usage")),
        was_refused=bool(refusal),
    )


def listed_models(content: bytes) -> frozenset[str]:
    """The ids in a server's list of models.

    Raises:
        Unreadable: It is not a list of models.
    """
    try:
        listed = _list(_object(orjson.loads(content))["data"])
        return frozenset(_text(_object(model)["id"]) for model in listed)
    except (orjson.JSONDecodeError, KeyError) as error:
        raise Unreadable from error


class Gathered:
    """Assembles a streamed answer from its chunks."""

    def __init__(self) -> None:
        self._finish: object = None
        self._text: list[str] = []
        self._refused = False
        self._calls: dict[int, _Fragments] = {}
        self._usage = Usage()
        self._size = 0
        self._pieces: list[CallDelta] = []

    @property
    def complete(self) -> bool:
        """Whether the server has sent a finish reason."""
        return bool(self._finish)

    def add(self, chunk: object) -> tuple[str, str]:
        """Add a chunk; returns its text, and its text that is a refusal.

        Raises:
            Unreadable: The chunk is not valid, or the answer is endless.
        """
        body = _object(chunk)
        if body.get("usage"):
            self._usage = usage_from(body["usage"])
        if "choices" not in body:
            raise Unreadable
        choices = [self._add_choice(choice) for choice in _list(body["choices"])]
        text, refusal = (
            ("".join(texts) for texts in zip(*choices, strict=True))
            if choices
            else (
                "",
                "",
            )
        )
        self._text.append(text + refusal)
        self._grow(text + refusal)
        return text, refusal

    def pieces(self) -> list[CallDelta]:
        """The pieces of calls in the chunks since the last call of this method."""
        found, self._pieces = self._pieces, []
        return found

    def _add_choice(self, value: object) -> tuple[str, str]:
        choice = _object(value)
        delta = _object(choice.get("delta") or {})
        refusal = _text(delta.get("refusal"))
        self._refused = self._refused or bool(refusal)
        for fragment in _list(delta.get("tool_calls")):
            self._add_call(_object(fragment))
        self._finish = choice.get("finish_reason") or self._finish
        return _text(delta.get("content")), refusal

    def _add_call(self, fragment: Mapping[str, Any]) -> None:
        function = _object(fragment.get("function") or {})
        identifier, name = _text(fragment.get("id")), _text(function.get("name"))
        index = fragment.get("index")
        if not isinstance(index, int):
            # Some servers send no index: a fragment with a name begins a call.
            index = len(self._calls) if name else max(len(self._calls) - 1, 0)
        call = self._calls.setdefault(index, _Fragments())
        call.id = identifier or call.id
        call.name = name or call.name
        piece = _arguments(function.get("arguments"))
        call.arguments.append(piece)
        self._grow(piece)
        if piece and call.name:
            place = sorted(self._calls).index(index)
            self._pieces.append(CallDelta(index=place, name=call.name, arguments=piece))

    def _grow(self, piece: str) -> None:
        self._size += len(piece)
        # An endless answer would exhaust the memory of the process and its other turns.
        if self._size > LONGEST_ANSWER:
            raise Unreadable

    def response(self) -> ModelResponse:
        """Build the complete response.

        Raises:
            Unreadable: A call has no name.
            Aborted: The answer ended with an error.
        """
        indexes = sorted(self._calls)
        cut = self._finish == _CUT
        return _assembled(
            text="".join(self._text),
            calls=tuple(
                self._calls[index].call(cut=cut and index == indexes[-1]) for index in indexes
            ),
            finish=self._finish,
            usage=self._usage,
            was_refused=self._refused,
        )


class _Fragments:
    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []

    def call(self, *, cut: bool) -> ToolCall:
        return _named(self.id, self.name, "".join(self.arguments), cut=cut)


def usage_from(value: object) -> Usage:
    """Read token counts; 0 where they are missing or invalid."""
    data = value if isinstance(value, Mapping) else {}
    details = data.get("prompt_tokens_details")
    return Usage(
        input_tokens=count(data.get("prompt_tokens")),
        output_tokens=count(data.get("completion_tokens")),
        cached_tokens=count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0,
    )


def _assembled(
    *, text: str, calls: tuple[ToolCall, ...], finish: object, usage: Usage, was_refused: bool
) -> ModelResponse:
    if finish == _ERROR:
        raise Aborted
    reason = FinishReason.REFUSAL if was_refused else finish_reason(finish)
    if reason in COMPLETE:
        # Some servers give the wrong one of the two.
        reason = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    return ModelResponse(
        message=AssistantMessage(content=text, tool_calls=calls), usage=usage, finish=reason
    )


def _call(value: object, *, cut: bool) -> ToolCall:
    call = _object(value)
    function = _object(call.get("function"))
    return _named(
        _text(call.get("id")), _text(function.get("name")), function.get("arguments"), cut=cut
    )


def _named(identifier: str, name: str, arguments: object, *, cut: bool) -> ToolCall:
    if not name:
        raise Unreadable
    return tool_call(identifier, name, _arguments(arguments), cut=cut)


def _arguments(value: object) -> str:
    # Some servers send the object itself instead of its JSON text.
    return orjson.dumps(value).decode() if isinstance(value, dict) else _text(value)


def _text(value: object) -> str:
    """Read a text; some servers send a list of parts."""
    if value is None or isinstance(value, str):
        return value or ""
    texts = [_object(part).get("text") for part in _list(value)]
    if not all(isinstance(text, str) for text in texts):
        raise Unreadable
    return "".join(map(str, texts))


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Unreadable
    return value


def _list(value: object) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Unreadable
    return value
