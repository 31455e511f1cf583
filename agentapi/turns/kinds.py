"""What kind of work a turn is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from agentapi.conversation.compaction import COMPACT

GATHER: Final = "agentapi.gather"
CHAIN: Final = "agentapi.chain"


class TurnKind(StrEnum):
    """What a worker does for a turn."""

    AGENT = "agent"
    """An agent answers a message."""
    COMPACTION = "compaction"
    """An agent's model summarises another conversation."""
    GATHER = "gather"
    """Several turns are asked in parallel."""
    CHAIN = "chain"
    """Several turns are asked one after the other."""


_KINDS: Final[Mapping[str, TurnKind]] = {
    COMPACT: TurnKind.COMPACTION,
    GATHER: TurnKind.GATHER,
    CHAIN: TurnKind.CHAIN,
}


def kind_of(agent: str) -> TurnKind:
    """The kind of a turn, by the agent that its wake-up names, or a turn without a stored kind.

    No agent of a user can have such a name: names that begin with ``agentapi.`` are reserved.
    """
    return _KINDS.get(agent, TurnKind.AGENT)
