"""Client tools in the agent loop: what the model is offered, and which calls the client runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentapi.conversation.messages import AssistantMessage, ToolCall
from agentapi.engine.progress import TurnProgress
from agentapi.errors import ClientToolRefused
from agentapi.providers.base import ModelRequest, ToolSpec, ToolUse
from agentapi.tools.base import Toolbox
from agentapi.turns.calls import CallBook
from agentapi.turns.client_tools import NOT_IN_TIME, ClientTools, LastWord, ToolChoice


def offered(request: ModelRequest, client: ClientTools, progress: TurnProgress) -> ModelRequest:
    """The request with the client's tools after the agent's own.

    Raises:
        ClientToolRefused: A client tool has the name of one of the agent's own tools.
    """
    check_names(client, [spec.name for spec in request.tools])
    # The choice is for the next calls only: otherwise every later call would be forced too.
    chosen = progress.client_responses(client.since) == 0
    choice = client.choice if chosen else ToolChoice.AUTO
    if choice is ToolChoice.NONE:
        return request
    only = client.only if chosen else ()
    specs = [
        ToolSpec(
            name=tool.name,
            description=tool.description,
            parameters=tool.parameters,
            strict=tool.strict,
        )
        for tool in client.tools
        if not only or tool.name in only
    ]
    required = choice is ToolChoice.REQUIRED
    use = ToolUse(
        required=required,
        name=only[0] if required and len(only) == 1 else None,
        parallel=client.parallel,
    )
    return replace(
        request, tools=(*request.tools, *specs), tool_use=None if use == ToolUse() else use
    )


def check_names(client: ClientTools, own: Sequence[str]) -> None:
    """Check that no client tool has the name of one of the agent's own tools.

    Raises:
        ClientToolRefused: One has.
    """
    if taken := sorted(client.names.intersection(own)):
        raise ClientToolRefused(
            f"the agent has its own tool named {taken[0]!r}: rename the client tool"
        )


def is_last_word(client: ClientTools | None, calls: Sequence[ToolCall], book: CallBook) -> bool:
    """Whether the turn completes with open calls, instead of waiting for them or continuing.

    Args:
        client: The client's tools, if the turn has any.
        calls: The open calls of the latest response.
        book: The outcomes of calls that waited.
    """
    if (
        client is None
        or not calls
        or not all(call.client and call.malformed is None for call in calls)
    ):
        return False
    match client.last_word:
        case LastWord.ALWAYS:
            return True
        case LastWord.WHEN_LATE:
            return all(book.outputs.get(call.id) == NOT_IN_TIME for call in calls)
        case LastWord.NEVER:
            return False


def marked(message: AssistantMessage, client: ClientTools, own: Toolbox) -> AssistantMessage:
    """The response, with calls of client tools marked as such."""
    calls = message.tool_calls
    if len(calls) > 1 and not client.parallel:
        # The provider does not know the option. Its `provider_data` describes all calls.
        calls = calls[:1]
        message = replace(message, provider_data={})
    names = client.names
    return replace(
        message,
        tool_calls=tuple(
            replace(call, client=True)
            if call.name in names and own.get(call.name) is None
            else call
            for call in calls
        ),
    )
