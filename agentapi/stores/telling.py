"""The protocol of hooks that run after a turn's end was written, at least once for each end."""

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
    """An end that this process has taken, to tell an agent's hooks of it.

    Attributes:
        entry: The end as the store names it.
        end_id: The end's id, as in `TurnEnd.id`.
        turn_id: The turn.
        agent: Whose hooks are to be told.
        turn: The turn as it ended; None when its record cannot be read.
    """

    entry: str
    end_id: str
    turn_id: str
    agent: str
    turn: Turn | None


class Telling(StrEnum):
    """What becomes of an end."""

    TOLD = "told"
    """All hooks have been called."""
    AGAIN = "again"
    """To be tried again after a delay."""
    GIVEN_UP = "given_up"
    """The hooks failed too often and are not called again."""


class HookStore(Protocol):
    """Ends that hooks are to be told of. Costs a turn nothing while no agent has such a hook."""

    def expect(self, agents: Collection[str], seconds: float) -> None:
        """Note that workers have hooks for the ends of these agents' turns.

        From now on such ends are kept until the hooks were told.

        Args:
            agents: Their names.
            seconds: How long this holds, unless it is said again.
        """
        ...

    def untold(self) -> list[int]:
        """Partitions with ends that hooks are to be told of now."""
        ...

    def tell(
        self, partition: int, agents: Collection[str], *, call: str, seconds: float, most: int
    ) -> Sequence[UntoldEnd]:
        """Take ends of a partition.

        Args:
            partition: The partition.
            agents: Agents whose hooks the caller has.
            call: Names this call; a repeat takes the same ends.
            seconds: When they are due again, unless `hold` or `told` is called.
            most: The most to take.
        """
        ...

    def hold(self, ends: Sequence[UntoldEnd], seconds: float) -> None:
        """Keep ends that the caller's hooks are being told of.

        Args:
            ends: What `tell` gave.
            seconds: When they are due again, unless `hold` or `told` is called.
        """
        ...

    def told(self, end: UntoldEnd, *, failed: bool, call: str) -> Telling:
        """Note that the hooks were told of an end, or have failed.

        Args:
            end: What `tell` gave.
            failed: Whether they have failed.
            call: Names this call; a repeat answers as the first call did.
        """
        ...
