"""The protocol for hooks that run after a turn's end is stored, at least once for each end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from agentapi.turns import Turn

FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 300.0
"""Seconds before a failed hook is called again. They double with each failure."""

MOST_FAILURES: Final = 10
"""Failures after which a hook is not called again, about a quarter of an hour after the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UntoldEnd:
    """An end that this process has taken, to call an agent's hooks for it.

    Attributes:
        entry: The store's key for the end.
        end_id: The end's id, as in `TurnEnd.id`.
        turn_id: The turn.
        agent: The agent whose hooks to call.
        turn: The turn as it ended; None when its record cannot be read.
    """

    entry: str
    end_id: str
    turn_id: str
    agent: str
    turn: Turn | None


class Telling(StrEnum):
    """The state of an end after its hooks were called."""

    TOLD = "told"
    """All hooks have been called."""
    AGAIN = "again"
    """To be tried again after a delay."""
    GIVEN_UP = "given_up"
    """The hooks failed too often and are not called again."""


class HookStore(Protocol):
    """Ends for which hooks must be called. It costs a turn nothing while no agent has such a
    hook."""

    def expect(self, agents: Collection[str], seconds: float) -> None:
        """Record that workers have hooks for the ends of these agents' turns.

        From now on such ends are kept until the hooks have been called.

        Args:
            agents: Their names.
            seconds: How long this is valid, unless it is renewed.
        """
        ...

    def untold(self) -> list[int]:
        """Partitions with ends for which hooks must be called now."""
        ...

    def tell(
        self, partition: int, agents: Collection[str], *, call: str, seconds: float, most: int
    ) -> Sequence[UntoldEnd]:
        """Take ends of a partition.

        Args:
            partition: The partition.
            agents: Agents whose hooks the caller has.
            call: Identifies this call; a repeat takes the same ends.
            seconds: When they are due again, unless `hold` or `told` is called.
            most: Maximum ends to take.
        """
        ...

    def hold(self, ends: Sequence[UntoldEnd], seconds: float) -> None:
        """Extend the caller's hold on ends whose hooks are running.

        Args:
            ends: Ends from `tell`.
            seconds: When they are due again, unless `hold` or `told` is called.
        """
        ...

    def told(self, end: UntoldEnd, *, failed: bool, call: str) -> Telling:
        """Record that the hooks were called for an end, or have failed.

        Args:
            end: An end from `tell`.
            failed: Whether they have failed.
            call: Identifies this call; a repeat returns the first answer.
        """
        ...
