"""`/v1/responses/input_tokens` and `/compact`: estimate a conversation's tokens, and compact it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi import APIRouter
from pydantic import Field

from agentapi.conversation.compaction import PROMPT, transcript
from agentapi.conversation.messages import Message
from agentapi.providers import ToolSpec
from agentapi.providers.estimate import estimate_request
from agentapi.turns import RequestOptions
from orchestrator.gateway.conversations.deletion import after_reply
from orchestrator.gateway.conversations.forks import turn_to_continue
from orchestrator.gateway.dependencies import View
from orchestrator.gateway.http.errors import InvalidRequest
from orchestrator.gateway.http.json_response import OrjsonResponse
from orchestrator.gateway.http.openapi import errors
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.ids import new_conversation_id, turn_id_of, turn_key
from orchestrator.gateway.openai.decisions import IGNORED, Decided
from orchestrator.gateway.openai.function_tools import Choice, Tools, tools_of
from orchestrator.gateway.openai.given_back import messages_of
from orchestrator.gateway.openai.input import Input, from_input
from orchestrator.gateway.openai.items import compaction_item
from orchestrator.gateway.openai.objects import response_usage
from orchestrator.gateway.openai.option_fields import Reasoning, TextOptions
from orchestrator.gateway.openai.request_bodies import (
    CacheOptions,
    ConversationRef,
    OpenAIRequest,
)
from orchestrator.gateway.openai.schemas import CompactedObject, TokenCount
from orchestrator.gateway.openai.submission import Enqueued, wait_for_end
from orchestrator.gateway.turn_labels import Labels
from orchestrator.gateway.turn_submission import NewMessage, Unnamed, accept
from orchestrator.gateway.view import TenantView
from orchestrator.results import raise_if_failed

router = APIRouter(prefix="/v1/responses", tags=["openai"], route_class=StrictRoute)

ESTIMATE: Final = "x-agentapi-estimate"
"""The response header that marks a token count as an estimate: only providers count exactly."""

Said = Annotated[
    str | list[dict[str, Any]] | None, Field(description="Text or items, as in `/v1/responses`.")
]


class CountTokens(OpenAIRequest):
    """Body of ``POST /v1/responses/input_tokens``."""

    model: str | None = None
    input: Said = None
    instructions: str | None = None
    conversation: str | ConversationRef | None = None
    previous_response_id: str | None = None
    personality: str | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None

    tools: Annotated[Tools | None, Field(description="Only functions are counted.")] = None
    tool_choice: Annotated[Choice | None, Field(description="Changes nothing.")] = None
    parallel_tool_calls: Annotated[bool | None, Field(description="Changes nothing.")] = None


class CompactConversation(CacheOptions):
    """Body of ``POST /v1/responses/compact``."""

    model: Annotated[
        str, Field(min_length=1, description="The agent whose model writes the summary.")
    ]
    input: Said = None
    instructions: Annotated[str | None, Field(description="Ignored.")] = None
    previous_response_id: str | None = None

    unsupported: ClassVar = {"image": ({},)}


@router.post("/input_tokens", responses={200: {"model": TokenCount}, **errors(404)})
async def count_input_tokens(body: CountTokens, view: View) -> OrjsonResponse:
    """Estimate the input tokens of a response. The agent's own prompt and tools count if the
    gateway knows its definition (`AGENTAPI_AGENTS`)."""
    said, messages = await _messages(view, body.input, body.previous_response_id)
    if body.conversation is not None:
        named = body.conversation
        conversation = named.id if isinstance(named, ConversationRef) else named
        await view.conversation(conversation)
        messages = [*await _history(view, view.internal(conversation), None), *messages]
    instructions = [body.instructions or "", *(each.text for each in said.instructions)]
    agent = view.gateway.agents.definitions.get(body.model or "")
    # A prompt that is a function depends on the turn, and there is no turn here.
    if agent is not None and isinstance(agent.system_prompt, str):
        instructions.insert(0, agent.system_prompt)
    prompt = "\n\n".join(text for text in instructions if text)
    tools = [] if agent is None else [tool.spec for tool in agent.tools]
    client = tools_of(body.tools, None, None, nested=False).client
    for tool in client.tools if client is not None else ():
        tools.append(
            ToolSpec(name=tool.name, description=tool.description, parameters=tool.parameters)
        )
    count = estimate_request(prompt, messages, tools)
    return OrjsonResponse(
        {"object": "response.input_tokens", "input_tokens": count}, headers={ESTIMATE: "true"}
    )


@router.post(
    "/compact", responses={200: {"model": CompactedObject}, **errors(404, 409, 422, 502, 504)}
)
async def compact_conversation(body: CompactConversation, view: View) -> OrjsonResponse:
    """Summarise a conversation with the model of an agent. Nothing of it is stored."""
    said, messages = await _messages(view, body.input, body.previous_response_id)
    said.conversation("input")
    if not messages:
        raise InvalidRequest("there is nothing to compact: send input", param="input")
    text, limit = transcript("", messages), view.gateway.settings.max_message_bytes
    if len(text.encode()) > limit:
        raise InvalidRequest(
            f"the input to compact is larger than one request to the model, {limit} bytes "
            "(AGENTAPI_MAX_MESSAGE_BYTES): compact the older part first",
            param="input",
        )
    operation, idle = uuid.uuid4().hex, view.gateway.settings.unstored_retention
    options = RequestOptions(
        instructions=PROMPT, replace=True, bare=True, store=False, decided=True
    )
    message = NewMessage(
        agent=body.model,
        text=text,
        idempotency_key=operation,
        labels=Labels(implicit=True),
        options=options,
        idle_time=idle,
    )
    place = Unnamed(
        conversation_id=new_conversation_id(),
        before=(),
        operation=operation,
        user_id=None,
        idle_time=idle,
    )
    with view.stream_slot():
        made = Enqueued(
            turn_id=await accept(view, message, place), decided=Decided(options=options)
        )
        turn = (await wait_for_end(view, made, None)).turn
    after = after_reply(view, turn)
    if turn.error is not None and after is not None:
        await after()
    raise_if_failed(turn)
    key = turn_key(turn.turn_id)
    compacted = {
        "id": f"resp_{key}",
        "object": "response.compaction",
        "created_at": int(turn.created_at or time.time()),
        "output": [compaction_item(f"cmp_{key}", turn.text or "")],
        "usage": response_usage(turn.usage),
    }
    headers = {IGNORED: "instructions"} if body.instructions else {}
    return OrjsonResponse(compacted, headers=headers, background=after)


async def _messages(
    view: TenantView, given: str | list[dict[str, Any]] | None, previous: str | None
) -> tuple[Input, list[Message]]:
    said = from_input(given) if given else Input(entries=())
    messages = await messages_of(view, said.entries)
    if previous is not None:
        turn = await turn_to_continue(view, turn_id_of(previous))
        messages = [*await _history(view, turn.conversation_id, turn.turn_id), *messages]
    return said, messages


async def _history(view: TenantView, internal: str, turn_id: str | None) -> Sequence[Message]:
    """The messages of a conversation, up to a turn if one is given."""
    history = view.history_of(internal)
    last = 2**53
    if turn_id is not None:
        place = await history.seek(turn_id)
        if place is None:
            raise InvalidRequest(
                "the response is not part of its conversation's history yet: wait until it is "
                "completed",
                param="previous_response_id",
                code="previous_response_not_usable",
            )
        last = place.position + 1
    found = await history.messages(0, last, view.gateway.settings.gateway_fork_bytes)
    return found[1] if found is not None else ()
