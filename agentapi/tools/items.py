"""Converts generators in tool results to lists, up to a limit.

Serialising a generator runs it. An infinite one would block the event loop and, with it, every turn
of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import Any, Final

MOST_ITEMS: Final = 100_000
"""Maximum items of a generator."""

_LOOKED_AT: Final = 10_000
"""Maximum values of a result that are searched for generators, to limit the cost."""

_PAUSE: Final = 1_000


def unrolled(value: Any) -> Any:
    """Replace the generators in a value by lists.

    Raises:
        ValueError: A generator yields more than `MOST_ITEMS`.
        Exception: A generator raised it.
    """
    return _unrolled(value) if _holds_a_generator(value) else value


async def gathered(items: AsyncIterator[Any]) -> list[Any]:
    """Collect the items of an asynchronous generator; raises the same as `unrolled`."""
    found: list[Any] = []
    async for item in items:
        found.append(item)
        if len(found) % _PAUSE == 0:
            _check(len(found))
            # A generator that never awaits would starve the event loop and ignore its timeout.
            await asyncio.sleep(0)
    return found


def _holds_a_generator(value: Any) -> bool:
    waiting, looked_at = [value], 0
    while waiting and looked_at < _LOOKED_AT:
        found = waiting.pop()
        looked_at += 1
        if isinstance(found, dict):
            waiting += islice(found.values(), _LOOKED_AT)
        elif isinstance(found, list | tuple | set | frozenset):
            waiting += islice(found, _LOOKED_AT)
        elif isinstance(found, Iterator):
            return True
    return False


def _unrolled(value: Any) -> Any:
    match value:
        case dict():
            return {key: _unrolled(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_unrolled(inner) for inner in value]
        case Iterator():
            return [_unrolled(inner) for inner in _taken(value)]
        case _:
            return value


def _taken(items: Iterable[Any]) -> list[Any]:
    found = list(islice(items, MOST_ITEMS + 1))
    _check(len(found))
    return found


def _check(count: int) -> None:
    if count > MOST_ITEMS:
        raise ValueError(f"the tool yields more than {MOST_ITEMS} items")
