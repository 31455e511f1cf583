"""The bodies of OpenAI's requests: which parameters are supported, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.gateway.http.errors import InvalidRequest, UnsupportedParameter
from orchestrator.gateway.openai.function_tools import Choice, Tools
from orchestrator.gateway.openai.option_fields import (
    ChatFormat,
    Effort,
    Include,
    Limit,
    Penalty,
    Reasoning,
    Stop,
    Temperature,
    TextOptions,
    TopP,
    Verbosity,
)

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
UserId = Annotated[str, Field(min_length=1, max_length=512)]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"]

_BOTH: Final[Mapping[str, tuple[Any, ...]]] = {
    "moderation": (),
    "top_logprobs": (0,),
}

_REASONS: Final[Mapping[str, str]] = {
    "access_programs": "agents do not use this feature",
    "audio": "agents reply in text",
    "background_options": "a background response starts as soon as a worker is free",
    "context_management": "the agent's definition decides how much history its model receives",
    "function_call": "the agent's definition has its tools",
    "functions": "the agent's definition has its tools",
    "image": "agents reply in text",
    "logprobs": "the gateway has no log probabilities",
    "max_tool_calls": "the agent's definition limits its steps",
    "modalities": "agents reply in text",
    "moderation": "the gateway does not moderate",
    "n": "an agent gives one answer",
    "prompt": "the gateway has no stored prompts",
    "top_logprobs": "the gateway has no log probabilities",
    "web_search_options": "the agent's definition has its tools",
}


class OpenAIRequest(BaseModel):
    """A request body. A parameter is supported, or refused by name with the reason."""

    model_config = ConfigDict(extra="forbid", strict=True)

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """OpenAI's parameters that the gateway does not support, with values that have no effect."""

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept: dict[str, Any] = {}
        for name, value in data.items():
            if name in cls.model_fields:
                kept[name] = value
            elif name not in cls.unsupported:
                raise InvalidRequest(
                    f"unknown parameter: {name!r}", param=name, code="unknown_parameter"
                )
            elif value is not None and not _is_one_of(value, cls.unsupported[name]):
                reason = _REASONS.get(name, "it is part of the agent's definition")
                raise UnsupportedParameter(
                    f"{name} is not supported: {reason}; omit it", param=name
                )
        return kept


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    return any(type(value) is type(known) and value == known for known in neutral)


class ConversationRef(BaseModel):
    """A conversation by its id."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str


class ResponseStreamOptions(BaseModel):
    """Options of a response's stream. The gateway never obfuscates, but accepts the option."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_obfuscation: bool | None = None


class CacheOptions(OpenAIRequest):
    """Parameters that change nothing, or only what a request costs."""

    tools: Tools | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: Annotated[str | None, Field(description="Changes nothing.")] = None
    prompt_cache_options: Annotated[
        dict[str, Any] | None, Field(description="Changes nothing.")
    ] = None
    prompt_cache_retention: Annotated[str | None, Field(description="Changes nothing.")] = None
    service_tier: Annotated[
        ServiceTier | None, Field(description="Ignored unless `auto` or `default`.")
    ] = None


class _Sampled(CacheOptions):
    """Parameters of both kinds of requests."""

    temperature: Temperature | None = None
    top_p: TopP | None = None


class CreateResponse(_Sampled):
    """Body of ``POST /v1/responses``."""

    model: Annotated[str, Field(min_length=1, description="Name of an agent.")]
    input: Annotated[
        str | Annotated[list[dict[str, Any]], Field(min_length=1)],
        Field(description="Text, or items: messages, and items that the gateway returned."),
    ]
    instructions: Annotated[
        str | None, Field(description="If the agent's policy allows: added after its own prompt.")
    ] = None
    conversation: str | ConversationRef | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: Annotated[
        bool | None,
        Field(description="`false`: nothing of the turn is kept once its result was read."),
    ] = None
    include: Annotated[
        list[Include] | None, Field(description="Accepted for compatibility; adds nothing.")
    ] = None
    max_output_tokens: Limit | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    truncation: Annotated[
        Literal["auto", "disabled"] | None,
        Field(description="`auto` is ignored: the agent's window decides."),
    ] = None
    metadata: Metadata | None = None
    user: UserId | None = None
    safety_identifier: UserId | None = None

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **_BOTH,
        "access_programs": (),
        "background_options": ({},),
        "context_management": ([],),
        "image": ({},),
        "max_tool_calls": (),
        "prompt": (),
    }

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation, if the request names one."""
        if isinstance(self.conversation, ConversationRef):
            return self.conversation.id
        return self.conversation

    @model_validator(mode="after")
    def _check_exclusive(self) -> CreateResponse:
        if self.conversation is not None and self.previous_response_id is not None:
            raise InvalidRequest(
                "conversation and previous_response_id cannot be combined",
                param="previous_response_id",
                code="mutually_exclusive_parameters",
            )
        if self.background and self.store is False:
            raise InvalidRequest(
                "background=true needs store=true, so that the result can be read later",
                param="store",
                code="mutually_exclusive_parameters",
            )
        return self


class ChatStreamOptions(BaseModel):
    """Options of a chat completion's stream."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CreateChat(_Sampled):
    """Body of ``POST /v1/chat/completions``."""

    model: Annotated[str, Field(min_length=1, description="Name of an agent.")]
    messages: Annotated[
        list[dict[str, Any]],
        Field(min_length=1, description="Messages of the system, the user and the assistant."),
    ]
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    store: Annotated[
        bool | None,
        Field(description="`false`: nothing of the turn is kept once its result was read."),
    ] = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    max_completion_tokens: Limit | None = None
    max_tokens: Limit | None = None
    prediction: Annotated[
        dict[str, Any] | None, Field(description="Ignored: it is only an optimisation.")
    ] = None
    reasoning_effort: Effort | None = None
    response_format: ChatFormat | None = None
    seed: int | None = None
    stop: Stop | None = None
    verbosity: Verbosity | None = None
    metadata: Annotated[
        Metadata | None,
        Field(description="With `conversation_id`, only the last message is new."),
    ] = None
    user: UserId | None = None
    safety_identifier: UserId | None = None

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **_BOTH,
        "audio": (),
        "function_call": ("auto", "none"),
        "functions": ([],),
        "logprobs": (False,),
        "modalities": (["text"],),
        "n": (1,),
        "web_search_options": (),
    }


class UpdateChat(OpenAIRequest):
    """Body of ``POST /v1/chat/completions/{id}``."""

    metadata: Metadata | None


class CreateConversation(OpenAIRequest):
    """Body of ``POST /v1/conversations``."""

    items: Annotated[list[dict[str, Any]], Field(max_length=20)] | None = None
    metadata: Metadata | None = None


class UpdateConversation(OpenAIRequest):
    """Body of ``POST /v1/conversations/{id}``."""

    metadata: Metadata | None


class CreateItems(OpenAIRequest):
    """Body of ``POST /v1/conversations/{id}/items``."""

    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=20)]
