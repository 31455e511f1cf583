"""What a turn waits for when it waits for something that has failed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class WaitKind(StrEnum):
    """What kind of thing a turn waits for."""

    PROVIDER = "provider"
    """A model provider."""
    TOOL_SERVER = "tool_server"
    """A tool server (MCP)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingFor:
    """What a turn waits for, until the call that failed has succeeded.

    Attributes:
        kind: What kind of thing it is.
        names: Its names: one, or those of all the agent's providers when none of them answers.
        failures: How often the turn found it away; 0 while the turn waits for room in
            ``AGENTAPI_PROVIDER_LIMITS``.
        since: When the first of these failures was, in seconds since 1970 by the store's clock;
            None without a failure.
        next_try_at: When the turn tries again, by the same clock; None while a worker is trying.
    """

    kind: WaitKind
    names: tuple[str, ...]
    failures: int = 0
    since: float | None = None
    next_try_at: float | None = None

    def describe(self, now: float) -> str:
        """The wait in words, such as "waiting for openai, next try in 12 s, third failure".

        Args:
            now: The time, in seconds since 1970.
        """
        seconds = None if self.next_try_at is None else self.next_try_at - now
        return describe_wait(self.names, seconds, self.failures)


def describe_wait(names: tuple[str, ...], seconds: float | None, failures: int) -> str:
    """A wait in words.

    Args:
        names: What is waited for.
        seconds: Until the next try; None while a worker is trying.
        failures: How many there were.
    """
    what = " or ".join(names)
    if seconds is None:
        text = f"trying {what} again"
    else:
        text = f"waiting for {what}, next try in {max(0, math.ceil(seconds))} s"
    return f"{text}, {_ordinal(failures)} failure" if failures else text


def _ordinal(number: int) -> str:
    if number <= len(_ORDINALS):
        return _ORDINALS[number - 1]
    tail = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{tail or 'th'}"
