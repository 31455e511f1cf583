"""What a request decides about its turn, besides the message: instructions, sampling, the reply.

An agent's `RequestPolicy` says which of it counts. What was decided is stored with the turn, so
every worker that continues the turn does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import orjson

from agentapi.decoding.records import object_in, record_of, some_text_in, text_in


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How a model samples its responses, and how long they may be. None leaves it to the agent.

    Attributes:
        temperature: From 0 to 2.
        top_p: Above 0, at most 1.
        presence_penalty: From -2 to 2.
        frequency_penalty: From -2 to 2.
        seed: For responses that can be repeated, as far as the provider supports that.
        stop: Texts at which a response ends.
        logit_bias: From -100 to 100 by token id.
        max_output_tokens: Longest response of one model call, 1 or more.
        reasoning_effort: Such as ``low``; what is valid depends on the model.
        verbosity: ``low``, ``medium`` or ``high``.
    """

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None

    def given(self) -> dict[str, Any]:
        """What is given, by name."""
        if self == NO_SAMPLING:
            return {}
        values = {name: getattr(self, name) for name in _NAMES}
        return {name: value for name, value in values.items() if value not in (None, (), {})}


_NAMES: Final = tuple(each.name for each in fields(Sampling))

SAMPLING: Final = frozenset(_NAMES)
"""The names of the fields of `Sampling`."""

NO_SAMPLING: Final = Sampling()


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestedOutput:
    """The form that a reply must have: JSON.

    Attributes:
        name: Name of the schema.
        schema: A JSON schema; None for any JSON object.
        description: What the reply is, for the model.
        strict: Whether the caller asked for strict mode. Replies are validated in any case.
    """

    name: str = "reply"
    schema: Mapping[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestOptions:
    """What a request decides about its turn.

    Attributes:
        instructions: Instructions to the model besides the agent's own prompt.
        replace: Whether they take the place of the agent's own prompt; otherwise they follow it.
        sampling: How the model samples its responses.
        output: The form of the reply; None leaves it to the agent.
        store: Whether the turn stays in the history. Otherwise only its result is kept, for
            `AGENTAPI_UNSTORED_RETENTION`.
        bare: Whether the model is asked without the agent's tools and `output_type`, as for a
            summary.
        decided: Whether the agent's policy has been applied. Otherwise the worker applies it.
    """

    instructions: str | None = None
    replace: bool = False
    sampling: Sampling = NO_SAMPLING
    output: RequestedOutput | None = None
    store: bool = True
    bare: bool = False
    decided: bool = False

    @property
    def empty(self) -> bool:
        """Whether the request decides nothing."""
        return (
            self.instructions is None
            and self.output is None
            and self.store
            and not self.bare
            and not self.sampling.given()
        )

    def to_json(self) -> bytes:
        """The options as they are stored with a turn."""
        data: dict[str, Any] = {}
        if self.instructions is not None:
            data["instructions"] = self.instructions
        if sampling := self.sampling.given():
            data["sampling"] = sampling
        if self.output is not None:
            given = asdict(self.output)
            data["output"] = {name: value for name, value in given.items() if value is not None}
        if not self.store:
            data["store"] = False
        if self.replace:
            data["replace"] = True
        if self.bare:
            data["bare"] = True
        if self.decided:
            data["decided"] = True
        return orjson.dumps(data)

    @classmethod
    def from_json(cls, data: bytes) -> RequestOptions:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is not JSON.
            TypeError: A field has the wrong type.
        """
        stored = orjson.loads(data)
        if not isinstance(stored, dict):
            raise TypeError("the options are not an object")
        output = stored.get("output")
        return cls(
            instructions=some_text_in(stored, "instructions"),
            replace=stored.get("replace") is True,
            sampling=_sampling(object_in(stored, "sampling")),
            output=None if output is None else record_of(RequestedOutput, output),
            store=stored.get("store") is not False,
            bare=stored.get("bare") is True,
            decided=stored.get("decided") is True,
        )


def _sampling(stored: Mapping[str, Any]) -> Sampling:
    given = dict(stored)
    if "stop" in given:
        given["stop"] = tuple(text_in({"stop": text}, "stop") for text in given["stop"])
    return record_of(Sampling, given)
