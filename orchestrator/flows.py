"""Checks the turns of a gather or a chain, and reads the replies of a gather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import orjson

from agentapi.agents.context_type import context_for, stored_context
from agentapi.agents.names import is_agent_name, unknown_agent
from agentapi.conversation.user_input import check_message
from agentapi.errors import InvalidInput, TurnFailed
from agentapi.settings import Settings
from agentapi.turns import TurnResult
from agentapi.turns.asks import LONGEST_CHAIN, REPLY, Ask
from orchestrator.turn_request import is_agent, named, refuse_internal

if TYPE_CHECKING:
    from agentapi import Agent
    from agentapi.agents.definition import AgentDefinition

Link: TypeAlias = "Ask | str | Agent | tuple[str | Agent, str]"
"""One turn: an `Ask`, a pair of agent and message, or, in a chain, an agent alone."""


def replies_of(
    turn_id: str, result: TurnResult, *, return_exceptions: bool
) -> Sequence[str | TurnFailed]:
    """The replies in a gather's result; see `GatherHandle.replies`."""
    replies: list[str | TurnFailed] = []
    for number, reply in enumerate(orjson.loads(result.text)):
        if isinstance(reply, str):
            replies.append(reply)
            continue
        error = TurnFailed(f"gathered turn {number}: {reply['error']}", turn_id=turn_id)
        if not return_exceptions:
            raise error
        replies.append(error)
    return replies


def checked_asks(
    links: Sequence[Link],
    known: Mapping[str, AgentDefinition],
    settings: Settings,
    *,
    chained: bool,
) -> list[Ask]:
    """Check the turns of a gather or a chain.

    Raises:
        UnknownAgent: Agents are registered here, and one of these is not among them.
        InvalidInput: There are no turns, too many turns, or one has no message.
    """
    most = LONGEST_CHAIN if chained else settings.max_children
    if not 0 < len(links) <= most:
        limit = "" if chained else " (AGENTAPI_MAX_CHILDREN)"
        raise InvalidInput(f"got {len(links)} turns; expected 1 to {most}{limit}")
    asks = [_ask(link) for link in links]
    for number, ask in enumerate(asks):
        if not is_agent_name(ask.agent):
            raise unknown_agent(ask.agent, known)
        refuse_internal(ask.agent)
        if known and ask.agent not in known:
            raise unknown_agent(ask.agent, known)
        first = number == 0 or not chained
        text = ask.message if isinstance(ask.message, str) else ""
        if not text.strip() or (first and REPLY in text):
            raise InvalidInput(
                f"turn {number} for agent {ask.agent!r} has no message: expected text"
                + ("; only the later links of a chain receive the previous reply" if first else "")
            )
        check_message(text)
    return asks


def check_flow_context(
    asks: Sequence[Ask], known: Mapping[str, AgentDefinition], context: object
) -> None:
    """Check that every agent known to this process can read the context, which all of them get.

    Raises:
        InvalidContext: One of them cannot.
    """
    stored = stored_context(context, None)
    for ask in asks:
        agent = known.get(ask.agent)
        if agent is not None:
            context_for(stored, agent.context)


def _ask(link: object) -> Ask:
    match link:
        case Ask():
            return link
        case _ if is_agent(link):
            return Ask(agent=named(link))
        case (agent, str() as message) if is_agent(agent):
            return Ask(agent=named(agent), message=message)
        case _:
            raise InvalidInput(
                f"{type(link).__name__} is not a turn; expected an Ask, or an agent and its message"
            )
