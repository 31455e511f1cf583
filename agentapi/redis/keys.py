"""Names of the keys in Redis.

All keys of a conversation and of its turns have its partition as hash tag, so that one script can
change them together, and so that a cluster can place each partition on a different node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agentapi.ids import partition_of, partition_of_turn


@dataclass(frozen=True, slots=True)
class ConversationKeys:
    """Keys of one conversation, and the due index of its partition."""

    messages: str
    meta: str
    inbox: str
    lease: str
    due: str
    claimed: str
    """Key of the due time of the partition's newest claimed wake-up."""
    blobs: str
    turns: str
    """Prefix of the keys of the partition's turns."""


@dataclass(frozen=True, slots=True)
class TurnKeys:
    """Keys of one turn."""

    turn: str
    journal: str
    events: str
    calls: str


def conversation_keys(conversation_id: str) -> ConversationKeys:
    """Names of the keys of a conversation."""
    partition = partition_of(conversation_id)
    prefix = f"{conversations_prefix(partition)}{conversation_id}"
    return ConversationKeys(
        messages=f"{prefix}:messages",
        meta=f"{prefix}:meta",
        inbox=f"{prefix}:inbox",
        lease=f"{prefix}:lease",
        due=due_key(partition),
        claimed=claimed_key(partition),
        blobs=f"{prefix}:blobs",
        turns=turns_prefix(partition),
    )


def turn_keys(turn_id: str) -> TurnKeys:
    """Names of the keys of a turn, from its id alone."""
    prefix = f"{turns_prefix(partition_of_turn(turn_id))}{turn_id}"
    return TurnKeys(
        turn=prefix,
        journal=f"{prefix}:journal",
        events=f"{prefix}:events",
        calls=f"{prefix}:calls",
    )


def conversations_prefix(partition: int) -> str:
    """Prefix of the keys of a partition's conversations."""
    return f"agentapi:{{{partition:03d}}}:c:"


def turns_prefix(partition: int) -> str:
    """Prefix of the keys of a partition's turns."""
    return f"agentapi:{{{partition:03d}}}:t:"


def due_key(partition: int) -> str:
    """Name of a partition's due index."""
    return f"agentapi:{{{partition:03d}}}:due"


def claimed_key(partition: int) -> str:
    """Name of the key that records how far a partition's wake-ups have been claimed."""
    return f"agentapi:{{{partition:03d}}}:claimed"


def list_keys(partition: int, names: Iterable[str]) -> list[str]:
    """Names of some of a partition's lists of turns or conversations."""
    return [f"agentapi:{{{partition:03d}}}:list:{name}" for name in names]


def ends_key(partition: int) -> str:
    """Name of the stream of a partition's ended turns."""
    return f"agentapi:{{{partition:03d}}}:ends"


def untold_key(partition: int) -> str:
    """Name of the index of a partition's ends for which hooks must be called."""
    return f"agentapi:{{{partition:03d}}}:untold"


def hooked_key(partition: int, agent: str) -> str:
    """Name of the key that records that workers have a hook for the ends of an agent's turns."""
    return f"agentapi:{{{partition:03d}}}:hooked:{agent}"


def copies_key(partition: int) -> str:
    """The index of a partition's archived copies that are not yet valid, or no longer valid."""
    return f"agentapi:{{{partition:03d}}}:copies"


def copied_key(partition: int) -> str:
    """Name of the key with the newest version of the copies of a partition's turns."""
    return f"agentapi:{{{partition:03d}}}:copied"


def waiting_key(partition: int, provider: str) -> str:
    """Name of the set of a partition's conversations that wait for a provider."""
    return f"agentapi:{{{partition:03d}}}:waiting:{provider}"


def due_key_of_turn(turn_id: str) -> str:
    """Name of the due index of a turn's partition."""
    return due_key(partition_of_turn(turn_id))


CANCELS_TTL = 60
"""Seconds after which a notification to a process that does not read it is deleted."""


def cancels_key(process: str) -> str:
    """Name of the list that notifies a worker process that one of its turns is cancelled."""
    return f"agentapi:cancels:{{{process}}}"


PROTOCOL_KEY = "agentapi:{protocol}"
"""The version of the turn protocol that the fleet writes."""

ELECTION_KEY = "agentapi:{sweeper}"
"""The lead worker, which does the work that exactly one worker of the fleet does."""

SHARES_KEY = f"{ELECTION_KEY}:shares"
"""The workers that sweep the groups of partitions."""

QUEUES_KEY = f"{ELECTION_KEY}:queues"
"""The fleet's number of queues."""

SWEPT_KEY = f"{ELECTION_KEY}:swept"
"""Time of the last sweep of the group that has gone longest without one."""
