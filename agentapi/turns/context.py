"""What a turn's functions learn about it: prompts, tools, hooks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic

from typing_extensions import TypeVar

ContextT = TypeVar("ContextT", default=Any)

GATEWAY_LABELS: Final = "agentapi:gateway"
"""The key in a turn's metadata under which the gateway keeps its own data."""

_NOTHING: Final[Any] = None


# Without slots: with them, `TurnContext[MyContext](...)` raises in Python 3.11.
@dataclass(frozen=True, kw_only=True)
class TurnContext(Generic[ContextT]):
    """The turn, as functions given as `system_prompt` or `tools` see it.

    Attributes:
        conversation_id: The conversation.
        turn_id: The turn.
        agent: Name of the agent that answers.
        user_id: The user who started the conversation, if known.
        tenant_id: The tenant the conversation belongs to, if any.
        metadata: The producer's own JSON object; empty when it sent none, and for turns that
            another turn delegated.
        attempt: 1 for the first worker that runs the turn, 2 after a takeover, and so on.
        time: When this attempt began, in UTC, by the clock of Redis.
        context: What the producer sent as ``context``: a value of the agent's `context_type`.
            For an agent without one a dict, or None when nothing was sent.
    """

    conversation_id: str
    turn_id: str
    agent: str = ""
    user_id: str | None = None
    tenant_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 1
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    context: ContextT = _NOTHING


def own_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy of a turn's metadata without the gateway's labels, which are not the caller's."""
    own = {name: value for name, value in metadata.items() if name != GATEWAY_LABELS}
    # A tool may change what it gets, and in eager mode the stored turn has the same objects.
    return copy.deepcopy(own) if own else own
