"""The backlog: what the turns of the whole fleet wait for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from agentapi.stores.missing import Missing

SAMPLE: Final = 200
"""Maximum conversations of a partition that are examined, separately for those due soon and those
due later. If there are more, the numbers are estimates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyTurn:
    """A turn that could run.

    Attributes:
        agent: The agent that it was enqueued for.
    """

    turn_id: str
    conversation_id: str
    agent: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """Counts of the first turns of all inboxes. The turns behind them wait for their own
    conversation.

    Attributes:
        ready: How many can run but have no worker, by partition.
        running: How many have a worker.
        parked: How many wait without a worker, by what they wait for: ``provider``,
            ``tool_server``, ``approval``, ``client``, ``children``, or ``other``.
        oldest_ready: Seconds for which the oldest ready turn has waited; 0 if there is none.
        first_ready: The oldest ready turn; None if there is none.
        missing: The part of a cluster that did not answer and is not counted; None if all shards
            answered.
    """

    ready: Mapping[int, int] = field(default_factory=dict)
    running: int = 0
    parked: Mapping[str, int] = field(default_factory=dict)
    oldest_ready: float = 0.0
    first_ready: ReadyTurn | None = None
    missing: Missing | None = None


class BacklogStore(Protocol):
    """The part of the store for views of the fleet."""

    def backlog(self) -> Backlog:
        """The current backlog; on a cluster, without shards that do not answer.

        Raises:
            StoreUnavailable: No shard answers.
        """
        ...
