"""Converts the provider-neutral message format to Gemini's JSON and back."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from google.genai import types

from agentapi.conversation.attachments import describe
from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    Message,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentapi.providers.answers import count
from agentapi.providers.base import OutputSpec, ToolSpec, ToolUse
from agentapi.turns.request_options import Sampling

PROVIDER: Final = "gemini"

FOREIGN_SIGNATURE: Final = "skip_thought_signature_validator"
"""Documented by Google for function calls that no Gemini model made: Gemini 3 models refuse a call
of the current turn without a signature (ai.google.dev, "Thought signatures")."""


_NO_BLOBS: Final[Mapping[str, bytes]] = {}


def contents(
    messages: Sequence[Message], blobs: Mapping[str, bytes] = _NO_BLOBS
) -> list[dict[str, Any]]:
    """Convert messages to Gemini's contents; the results of one response go into one content."""
    found: list[dict[str, Any]] = []
    ids: dict[str, str | None] = {}
    for message in messages:
        match message:
            case UserMessage():
                said: list[dict[str, Any]] = [{"text": message.content}]
                said += [_attached(attachment, blobs) for attachment in message.attachments]
                found.append({"role": "user", "parts": said})
            case AssistantMessage():
                parts = _model_parts(message)
                ids = _ids(message, parts)
                found.append({"role": "model", "parts": parts})
            case ToolMessage():
                part = _result(message, ids.get(message.call_id, message.call_id))
                if found and "functionResponse" in found[-1]["parts"][-1]:
                    found[-1]["parts"].append(part)
                else:
                    found.append({"role": "user", "parts": [part]})
    return found


def _attached(attachment: Attachment, blobs: Mapping[str, bytes]) -> dict[str, Any]:
    kind = {"mimeType": attachment.media_type} if attachment.media_type else {}
    if attachment.url is not None:
        return {"fileData": {**kind, "fileUri": attachment.url}}
    data = blobs.get(attachment.blob or "")
    if data is None:
        return {"text": f"[{describe(attachment)} is no longer kept]"}
    return {"inlineData": {**kind, "data": base64.b64encode(data).decode()}}


def _model_parts(message: AssistantMessage) -> list[dict[str, Any]]:
    own = message.provider_data.get(PROVIDER)
    if own and own.get("parts"):
        return list(own["parts"])
    parts: list[dict[str, Any]] = [{"text": message.content}] if message.content else []
    for number, call in enumerate(message.tool_calls):
        part: dict[str, Any] = {
            "functionCall": {"id": call.id, "name": call.name, "args": dict(call.arguments)}
        }
        if number == 0:
            part["thoughtSignature"] = FOREIGN_SIGNATURE
        parts.append(part)
    return parts or [{"text": ""}]


def _ids(message: AssistantMessage, parts: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Gemini's own ids of the calls. Some models give none, and then expect none."""
    sent = [part["functionCall"].get("id") for part in parts if "functionCall" in part]
    return {call.id: own for call, own in zip(message.tool_calls, sent, strict=False)}


def _result(message: ToolMessage, call_id: str | None) -> dict[str, Any]:
    outcome = "error" if message.is_error else "output"
    identity = {"id": call_id} if call_id else {}
    return {
        "functionResponse": {
            **identity,
            "name": message.name,
            "response": {outcome: message.content},
        }
    }


def tools(specs: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Convert tools to function declarations."""
    return [
        {
            "functionDeclarations": [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "parametersJsonSchema": dict(tool.parameters),
                }
                for tool in specs
            ]
        }
    ]


def tool_config(use: ToolUse | None) -> dict[str, Any] | None:
    """Convert how tools may be used; None if the model decides."""
    if use is None or not (use.required or use.name):
        return None
    names = {"allowedFunctionNames": [use.name]} if use.name else {}
    return {"functionCallingConfig": {"mode": "ANY", **names}}


def in_words(output: OutputSpec) -> str:
    """An instruction for models that do not support a response schema here."""
    schema = orjson.dumps(dict(output.schema)).decode()
    return f"Give your final reply as JSON only, without other text, matching this schema: {schema}"


_SAMPLING: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
    "stop": "stopSequences",
}
_LIMIT: Final = "maxOutputTokens"
_THINKING: Final = "thinkingConfig"

_VERSION: Final = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_FIRST_WITH_BUDGET: Final = (2, 5)
_FIRST_WITH_LEVEL: Final = (3, 0)

_BUDGETS: Final[Mapping[str, int]] = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
}
"""Thinking tokens for each effort, as in Google's own translation of OpenAI's API. The highest is
the maximum that every model of that generation accepts."""

_LEAST_OF_PRO: Final = 128

_LEVELS: Final[Mapping[str, types.ThinkingLevel]] = {
    "none": types.ThinkingLevel.MINIMAL,
    "minimal": types.ThinkingLevel.MINIMAL,
    "low": types.ThinkingLevel.LOW,
    "medium": types.ThinkingLevel.MEDIUM,
    "high": types.ThinkingLevel.HIGH,
}


def thinking(effort: str, model: str) -> dict[str, Any] | None:
    """The thinking configuration for a reasoning effort; None for models that do not think.

    Gemini 2.5 takes a number of tokens, later models take a level. Models of the size "pro" always
    think a little. Efforts above ``high`` count as ``high``.

    Args:
        effort: From ``none`` to ``max``.
        model: The model's name.
    """
    if "gemini" not in model:
        return None
    found = _VERSION.search(model)
    # A name without a version stands for the newest model.
    version = (int(found[1]), int(found[2] or 0)) if found else _FIRST_WITH_LEVEL
    if version < _FIRST_WITH_BUDGET:
        return None
    known, pro = effort if effort in _LEVELS else "high", "pro" in model
    if version < _FIRST_WITH_LEVEL:
        budget = _BUDGETS[known]
        return {"thinkingBudget": max(budget, _LEAST_OF_PRO) if pro else budget}
    level = _LEVELS[known]
    if pro and level is types.ThinkingLevel.MINIMAL:
        level = types.ThinkingLevel.LOW
    return {"thinkingLevel": level.value}


def with_sampling(options: Mapping[str, Any], sampling: Sampling, model: str) -> dict[str, Any]:
    """The agent's options combined with the request's, within the agent's own limit."""
    config = dict(options)
    effort = sampling.reasoning_effort
    if effort is not None and (wanted := thinking(effort, model)) is not None:
        own = config.get(_THINKING) or {}
        # A level and a number of tokens exclude each other, so both of the agent's values are
        # removed.
        kept = {name: own[name] for name in ("includeThoughts",) if name in own}
        config[_THINKING] = {**kept, **wanted}
    for name, value in sampling.given().items():
        if name in _SAMPLING:
            config[_SAMPLING[name]] = list(value) if isinstance(value, tuple) else value
    if (most := sampling.max_output_tokens) is not None:
        own = config.get(_LIMIT)
        config[_LIMIT] = min(most, own) if isinstance(own, int) else most
    return config


def usage_from(usage: types.GenerateContentResponseUsageMetadata) -> Usage:
    """Convert Gemini's token counts; thoughts count as output."""
    return Usage(
        input_tokens=count(usage.prompt_token_count) + count(usage.tool_use_prompt_token_count),
        output_tokens=count(usage.candidates_token_count) + count(usage.thoughts_token_count),
        cached_tokens=count(usage.cached_content_token_count),
    )


def _entries(details: object) -> list[Mapping[str, Any]]:
    """The details of an error body."""
    error = details.get("error") if isinstance(details, Mapping) else None
    entries = error.get("details") if isinstance(error, Mapping) else None
    return [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []


def day_is_spent(details: object) -> bool:
    """Whether a daily quota is exhausted, by the ``google.rpc.QuotaFailure`` of an error body.

    Google asks to retry such a request after some seconds, but the quota resets at midnight.
    """
    found = [entry.get("violations") for entry in _entries(details)]
    violations = [one for many in found if isinstance(many, list) for one in many]
    ids = [one.get("quotaId") for one in violations if isinstance(one, Mapping)]
    return any("PerDay" in str(quota) for quota in ids)


def retry_delay(details: object) -> float | None:
    """Read the ``google.rpc.RetryInfo`` of an error body, such as ``"17.5s"``, in seconds."""
    for entry in _entries(details):
        delay = entry.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            try:
                return max(float(delay[:-1]), 0.0)
            except ValueError:
                return None
    return None
