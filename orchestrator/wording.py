"""Words for people, shared by commands and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentapi.turns import Event


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: ``1 step``, ``2 steps``.

    Args:
        number: How many there are.
        noun: What is counted.
        plural: The noun's plural, if it is not the noun with an s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def either(words: Sequence[str]) -> str:
    """Words as alternatives: ``queued, running or parked``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def wait_of(event: Event) -> str | None:
    """Describe what a turn waits for after an event, such as "waiting for openai, next try in 12 s,
    third failure"; None if the event does not say that it waits for a provider or tool server."""
    from agentapi.turns import EventType
    from agentapi.turns.waiting import describe_wait

    names, seconds = event.data.get("waits_for"), event.data.get("seconds")
    if event.type is not EventType.PARKED or not names or not isinstance(seconds, int | float):
        return None
    failures = event.data.get("failures", 0)
    return describe_wait((str(names),), seconds, failures if isinstance(failures, int) else 0)
