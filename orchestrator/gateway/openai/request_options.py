"""Reads the options of OpenAI's requests as `RequestOptions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentapi.turns import RequestedOutput, RequestOptions, Sampling
from orchestrator.gateway.openai.input import Instruction
from orchestrator.gateway.openai.option_fields import (
    ChatSchemaFormat,
    ObjectFormat,
    Reasoning,
    ResponseSchemaFormat,
    TextFormat,
    TextOptions,
)
from orchestrator.gateway.openai.request_bodies import CreateChat, CreateResponse


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The options of a request.

    Attributes:
        options: The options.
        names: The parameter of each option, as the client wrote it.
        ignored: Parameters that every agent ignores.
    """

    options: RequestOptions
    names: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "temperature": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
"""OpenAI's default values, which clients often send without intent."""


_ANY_TEXT: Final = TextOptions()
_ANY_REASONING: Final = Reasoning()


def asked_by_chat(body: CreateChat, instructions: Sequence[Instruction]) -> Asked:
    """The options of a chat completion."""
    limit = body.max_completion_tokens or body.max_tokens
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    sampling = {
        **_sampling(body, "temperature", "top_p", "frequency_penalty", "presence_penalty"),
        **_sampling(body, "logit_bias", "seed", "reasoning_effort", "verbosity"),
        "stop": tuple(stop),
        "max_output_tokens": limit,
    }
    limit_name = "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
    return _asked(
        sampling,
        output=_output(body.response_format),
        store=body.store,
        instructions=instructions,
        names={"max_output_tokens": limit_name, "output": "response_format"},
        ignored=[*_tier(body), *(["prediction"] if body.prediction else [])],
    )


def asked_by_response(body: CreateResponse, instructions: Sequence[Instruction]) -> Asked:
    """The options of a response."""
    text, reasoning = body.text or _ANY_TEXT, body.reasoning or _ANY_REASONING
    sampling = {
        **_sampling(body, "temperature", "top_p", "max_output_tokens"),
        "reasoning_effort": reasoning.effort,
        "verbosity": text.verbosity,
    }
    given = body.instructions
    own = [Instruction(text=given, place="instructions")] if given else []
    ignored = _tier(body)
    if body.truncation == "auto":
        ignored.append("truncation")
    for name in ("summary", "generate_summary", "context", "mode"):
        if getattr(reasoning, name) is not None:
            ignored.append(f"reasoning.{name}")
    return _asked(
        sampling,
        output=_output(text.format),
        store=body.store,
        instructions=[*own, *instructions],
        names={
            "output": "text.format",
            "reasoning_effort": "reasoning.effort",
            "verbosity": "text.verbosity",
        },
        ignored=ignored,
    )


def _asked(
    sampling: Mapping[str, Any],
    *,
    output: RequestedOutput | None,
    store: bool | None,
    instructions: Sequence[Instruction],
    names: Mapping[str, str],
    ignored: list[str],
) -> Asked:
    said = [each for each in instructions if each.text]
    known = dict(names)
    if said:
        known["instructions"] = said[0].place
    return Asked(
        options=RequestOptions(
            instructions="\n\n".join(each.text for each in said) or None,
            sampling=Sampling(**sampling),
            output=output,
            store=store is not False,
        ),
        names=known,
        ignored=tuple(ignored),
    )


def _sampling(body: object, *names: str) -> dict[str, Any]:
    values = {name: getattr(body, name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if value is not None and value not in _NEUTRAL.get(name, ()) and value != {}
    }


def _tier(body: CreateChat | CreateResponse) -> list[str]:
    return [] if body.service_tier in (None, "auto", "default") else ["service_tier"]


def _output(
    form: TextFormat | ObjectFormat | ChatSchemaFormat | ResponseSchemaFormat | None,
) -> RequestedOutput | None:
    match form:
        case ObjectFormat():
            return RequestedOutput()
        case ChatSchemaFormat():
            return form.json_schema.requested()
        case ResponseSchemaFormat():
            return form.requested()
        case _:
            return None


def shown_format(output: RequestedOutput | None) -> dict[str, Any]:
    """The form of a response's text, as a response object shows it."""
    if output is None:
        return {"type": "text"}
    if output.schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": output.name,
        "schema": dict(output.schema),
        "description": output.description,
        "strict": output.strict,
    }


def without(options: RequestOptions, names: tuple[str, ...]) -> RequestOptions:
    """Options without some sampling parameters."""
    given = options.sampling.given()
    kept = {name: value for name, value in given.items() if name not in names}
    return replace(options, sampling=Sampling(**kept))
