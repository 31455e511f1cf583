"""Client tools: functions that a request brings, and that its client calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from agentapi.conversation.messages import Usage
from agentapi.decoding.records import record_of
from agentapi.turns.request_options import RequestOptions


class ToolChoice(StrEnum):
    """Whether the model may or must call a tool."""

    AUTO = "auto"
    """The model decides."""
    NONE = "none"
    """Client tools are not offered to the model; the agent's own tools are."""
    REQUIRED = "required"
    """The model must call a tool."""


class LastWord(StrEnum):
    """Whether a turn may end with calls that its client has not answered."""

    NEVER = "never"
    """The turn waits; if the client does not answer in time, the model is told so."""
    WHEN_LATE = "when_late"
    """The turn waits; if the client does not answer in time, it completes with the calls."""
    ALWAYS = "always"
    """The turn does not wait: it completes with the calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientTool:
    """A function that the client calls.

    Attributes:
        name: Letters, digits, underscores and dashes; 64 characters at most.
        description: For the model.
        parameters: JSON schema of the arguments, an object.
        strict: Whether the provider is asked to keep to the schema exactly, if it can.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientTools:
    """The client tools of a turn, and how the model may use them.

    Attributes:
        tools: The functions.
        choice: Whether the model may or must call one, until it has called one.
        only: Names of the tools that are offered; all when empty. One name with `REQUIRED` forces
            that call.
        parallel: Whether one response may have several calls.
        timeout: Seconds that a call waits for its output; the setting when None.
        since: Number of the turn's responses after which `choice` counts.
        last_word: Whether the turn may end with unanswered calls.
    """

    tools: Sequence[ClientTool] = ()
    choice: ToolChoice = ToolChoice.AUTO
    only: Sequence[str] = ()
    parallel: bool = True
    timeout: float | None = None
    since: int = 0
    last_word: LastWord = LastWord.NEVER

    @property
    def names(self) -> frozenset[str]:
        """Names of the functions."""
        return frozenset(tool.name for tool in self.tools)

    def to_json(self) -> bytes:
        """The form in which they are stored."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes | str) -> ClientTools:
        """Read stored client tools."""
        value = orjson.loads(data)
        read = {
            "tools": tuple(record_of(ClientTool, tool) for tool in value.get("tools", ())),
            "choice": ToolChoice(value.get("choice", ToolChoice.AUTO)),
            "only": tuple(map(str, value.get("only", ()))),
            "last_word": LastWord(value.get("last_word", LastWord.NEVER)),
        }
        return record_of(cls, {**value, **read})


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientCall:
    """A call that waits for its client.

    Attributes:
        call_id: The model's id of the call.
        tool: Name of the function.
        arguments: The arguments of the call.
        timeout: Seconds after which the model is told that the client did not answer.
        number: The call's place among the calls of its turn.
    """

    call_id: str
    tool: str
    arguments: Mapping[str, Any]
    timeout: float | None = None
    number: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientOutput:
    """What a client's call returned.

    Attributes:
        text: The output, for the model.
        is_error: Whether the call failed.
    """

    text: str
    is_error: bool = False


NOT_IN_TIME = ClientOutput(
    text="This call has no output: the client did not answer in time.", is_error=True
)
"""The output of a call whose time is up."""

NOT_ANSWERED = ClientOutput(
    text="This call has no output: the client continued without answering it.", is_error=True
)
"""The output of a call that was still open when the client sent something else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """The end of a part of a turn: the turn parked and asked its client or people.

    Attributes:
        responses: How many of the model's responses came before, rejected ones left out.
        client: Ids of the calls whose outputs it asked for.
        approvals: Ids of the calls that it asked to approve.
        usage: Tokens of the turn until then.
        at: When it parked, in seconds since 1970 by the store's clock.
    """

    responses: int
    client: Sequence[str] = ()
    approvals: Sequence[str] = ()
    usage: Usage = field(default_factory=Usage)
    at: float = 0.0

    def to_json(self) -> bytes:
        """The form in which it is stored; the store adds the time, in milliseconds."""
        # The number of responses comes first: scripts read it without decoding the rest.
        return orjson.dumps(
            {
                "responses": self.responses,
                "client": list(self.client),
                "approvals": list(self.approvals),
                "usage": self.usage,
            }
        )

    @classmethod
    def from_json(cls, data: bytes | str) -> Segment:
        """Read a stored segment."""
        value = orjson.loads(data)
        read = {
            "client": tuple(map(str, value.get("client", ()))),
            "approvals": tuple(map(str, value.get("approvals", ()))),
            "usage": record_of(Usage, value.get("usage", {})),
            "at": value.get("at", 0) / 1000,
        }
        return record_of(cls, {**value, **read})


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """What a request that answers a turn's calls changes for the turn's next part.

    Attributes:
        part: Number of the part that begins, counted from 0.
        metadata: Stored with the part; the turn's own metadata stay.
        stream: Whether the text goes to the turn's events as it arrives; None changes nothing.
        client_tools: The functions from now on; None changes nothing.
        options: What the request decides about the rest of the turn; None changes nothing.
    """

    part: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    stream: bool | None = None
    client_tools: ClientTools | None = None
    options: RequestOptions | None = None
