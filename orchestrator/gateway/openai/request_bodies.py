"""The bodies of OpenAI's requests: which parameters are supported, and which are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.gateway.http.errors import InvalidRequest, UnsupportedParameter

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
UserId = Annotated[str, Field(min_length=1, max_length=512)]

_BOTH: Final[Mapping[str, tuple[Any, ...]]] = {
    "moderation": (),
    "parallel_tool_calls": (True,),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "service_tier": ("auto", "default"),
    "temperature": (),
    "tool_choice": ("auto",),
    "tools": ([],),
    "top_logprobs": (0,),
    "top_p": (),
}


class OpenAIRequest(BaseModel):
    """A request body. Nothing in it is ignored: a parameter is supported, or refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """OpenAI's parameters that agents do not support, with the values that change nothing."""

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
                raise UnsupportedParameter(
                    f"{name} is not supported: it is part of the agent's definition; leave it out",
                    param=name,
                )
        return kept


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    return any(type(value) is type(known) and value == known for known in neutral)


class ConversationRef(BaseModel):
    """A conversation by its id."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str


class ResponseStreamOptions(BaseModel):
    """Options of a response's stream. Obfuscation is not supported."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_obfuscation: Literal[False] | None = None


class CreateResponse(OpenAIRequest):
    """Body of ``POST /v1/responses``."""

    model: Annotated[str, Field(min_length=1, description="Name of an agent.")]
    input: Annotated[
        str | Annotated[list[dict[str, Any]], Field(min_length=1)],
        Field(description="Text, or `message` items of the user and the assistant."),
    ]
    conversation: str | ConversationRef | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    metadata: Metadata | None = None
    user: UserId | None = None
    safety_identifier: UserId | None = None

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **_BOTH,
        "access_programs": (),
        "background_options": (),
        "context_management": (),
        "image": (),
        "include": ([],),
        "instructions": (),
        "max_output_tokens": (),
        "max_tool_calls": (),
        "prompt": (),
        "reasoning": (),
        "store": (True,),
        "text": ({"format": {"type": "text"}},),
        "truncation": ("disabled",),
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
                "conversation and previous_response_id exclude each other",
                param="previous_response_id",
                code="mutually_exclusive_parameters",
            )
        return self


class ChatStreamOptions(BaseModel):
    """Options of a chat completion's stream."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class CreateChat(OpenAIRequest):
    """Body of ``POST /v1/chat/completions``."""

    model: Annotated[str, Field(min_length=1, description="Name of an agent.")]
    messages: Annotated[
        list[dict[str, Any]],
        Field(min_length=1, description="Messages of the user and the assistant."),
    ]
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    metadata: Annotated[
        Metadata | None,
        Field(description="With `conversation_id`, only the last message is new."),
    ] = None
    user: UserId | None = None
    safety_identifier: UserId | None = None

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **_BOTH,
        "audio": (),
        "frequency_penalty": (),
        "function_call": (),
        "functions": (),
        "logit_bias": (),
        "logprobs": (False,),
        "max_completion_tokens": (),
        "max_tokens": (),
        "modalities": (["text"],),
        "n": (1,),
        "prediction": (),
        "presence_penalty": (),
        "reasoning_effort": (),
        "response_format": ({"type": "text"},),
        "seed": (),
        "stop": (),
        "store": (False,),
        "verbosity": (),
        "web_search_options": (),
    }


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
