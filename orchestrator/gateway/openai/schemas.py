"""The objects of OpenAI's API as the OpenAPI document describes them.

They are for the document only: the gateway builds its objects as plain dicts.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

T = TypeVar("T")


class ListOf(BaseModel, Generic[T]):
    """A page of a list."""

    object: Literal["list"]
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelObject(BaseModel):
    """An agent as a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsObject(BaseModel):
    """All agents."""

    object: Literal["list"]
    data: list[ModelObject]


class TextPart(BaseModel):
    """A part of a message."""

    type: Annotated[str, Field(examples=["input_text", "output_text"])]
    text: str


class MessageItem(BaseModel):
    """A message of the user or the assistant."""

    type: Literal["message"]
    id: str
    status: str
    role: str
    content: list[TextPart]


class CallItem(BaseModel):
    """A tool call that a worker made."""

    type: Literal["mcp_call"]
    id: str
    status: str
    name: str
    server_label: str
    arguments: Annotated[str, Field(description="JSON.")]
    output: str | None
    error: dict[str, Any] | str | None
    approval_request_id: str | None


class OtherItem(BaseModel):
    """An item of another type."""

    type: str
    id: str


ItemObject = MessageItem | CallItem | OtherItem


class ErrorOfResponse(BaseModel):
    """Why a response failed."""

    code: str
    message: str


class InputDetails(BaseModel):
    """Input tokens that cost less."""

    cached_tokens: int


class OutputDetails(BaseModel):
    """Output tokens that are not shown."""

    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """Tokens of all model calls of a response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ConversationOfResponse(BaseModel):
    """The conversation of a response."""

    id: str


class ResponseObject(BaseModel):
    """A turn as a response."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ErrorOfResponse | None
    incomplete_details: dict[str, Any] | None
    instructions: str | None
    max_output_tokens: int | None
    model: Annotated[str, Field(description="The agent.")]
    output: list[ItemObject]
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: ConversationOfResponse | None
    reasoning: dict[str, Any]
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Any
    tools: list[Any]
    top_p: float | None
    truncation: str
    usage: ResponseUsage | None
    user: str | None
    safety_identifier: str | None
    metadata: dict[str, Any]


class DeletedResponse(BaseModel):
    """A response that was deleted."""

    id: str
    object: Literal["response.deleted"]
    deleted: Literal[True]


class ConversationObject(BaseModel):
    """A conversation."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, Any]


class DeletedConversation(BaseModel):
    """A conversation that was deleted."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


class TokenCount(BaseModel):
    """An estimate of input tokens."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class CompactedObject(BaseModel):
    """A conversation made short: one item with a summary, which clients send back unread."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[ItemObject]
    usage: ResponseUsage


class ChatMessageObject(BaseModel):
    """The reply."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None


class ChatChoice(BaseModel):
    """The one choice of a completion."""

    index: int
    message: ChatMessageObject
    finish_reason: str
    logprobs: None


class ChatUsage(BaseModel):
    """Tokens of all model calls of a completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatObject(BaseModel):
    """A turn as a chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: Annotated[str, Field(description="The agent.")]
    choices: list[ChatChoice]
    usage: ChatUsage


class DeletedChat(BaseModel):
    """A chat completion that was deleted."""

    id: str
    object: Literal["chat.completion.deleted"]
    deleted: Literal[True]


class StoredMessage(BaseModel):
    """A message of a stored chat completion."""

    id: str
    role: str
    content: str | None
