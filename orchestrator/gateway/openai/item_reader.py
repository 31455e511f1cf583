"""The items of a conversation, of which no more is read than is asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from agentapi.stores.conversations import END, StoredMessage
from orchestrator.gateway.conversations.history import History
from orchestrator.gateway.http.errors import InvalidRequest
from orchestrator.gateway.ids import name_of_item
from orchestrator.gateway.openai.items import Item, items_of, shown

PAGE_BYTES: Final = 4_194_304
"""Bytes of stored messages after which a page of items ends early."""

_REMEMBERED: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An item, and where it was found.

    Attributes:
        item: The item.
        kept: The message that it shows.
        first: Position of the first message of its turn.
        last: Position of the last one.
    """

    item: Item
    kept: StoredMessage
    first: int
    last: int


class Positions:
    """Where items were last seen. A hint: what is there now is looked at."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    def get(self, conversation_id: str, item_id: str) -> int | None:
        """Position of the last message of the item's turn, if it is known."""
        return self._known.get((conversation_id, item_id))

    def keep(self, conversation_id: str, item_id: str, position: int) -> None:
        """Remember it."""
        self._known[(conversation_id, item_id)] = position
        self._known.move_to_end((conversation_id, item_id))
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


class ItemReader:
    """Reads the items of one history."""

    def __init__(self, history: History, conversation_id: str, positions: Positions) -> None:
        self._history = history
        self._conversation_id = conversation_id
        self._positions = positions

    async def page(self, *, after: str | None, limit: int, order: str) -> dict[str, Any]:
        """A page of the list; a short one when its items are large.

        Args:
            after: Id of the last item of the page before.
            limit: At most so many.
            order: ``asc`` or ``desc``.

        Raises:
            InvalidRequest: No item has the id `after`.
            StoreUnavailable: Redis is out of reach.
        """
        found: list[dict[str, Any]] = []
        size = 0
        async with aclosing(self._items(after, up=order == "asc")) as items:
            async for item in items:
                if len(found) == limit or size >= PAGE_BYTES:
                    return shown(found, more=True)
                found.append(item.item.item)
                size += len(item.kept.raw)
                self._positions.keep(self._conversation_id, item.item.id, item.last)
        return shown(found, more=False)

    async def find(self, item_id: str) -> Found | None:
        """An item by its id, if it is there.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        known = self._positions.get(self._conversation_id, item_id)
        if known is not None and (found := await self._at(item_id, known)) is not None:
            return found
        name = name_of_item(item_id)
        if isinstance(name, int):
            return await self._at(item_id, name)
        place = await self._history.seek(name) if name is not None else None
        return await self._at(item_id, place.position) if place is not None else None

    async def _items(self, after: str | None, *, up: bool) -> AsyncGenerator[Found, None]:
        """All of them, or those after one, in either direction."""
        first, last = 0, END
        seen = after is None
        if after is not None:
            begin = await self.find(after)
            if begin is None:
                raise InvalidRequest(f"there is no item {after!r} in the list", param="after")
            first, last = begin.first, begin.last
        history = self._history
        async with aclosing(history.up(first) if up else history.down(last)) as groups:
            async for group in groups:
                items = _found(group)
                for item in items if up else reversed(items):
                    if seen:
                        yield item
                    seen = seen or item.item.id == after

    async def _at(self, item_id: str, position: int) -> Found | None:
        """The item, if it belongs to the group that has the position."""
        async with aclosing(self._history.down(position)) as below:
            # The position may be in the middle of its group.
            group = await anext(below, None)
        if group is None:
            return None
        async with aclosing(self._history.up(group[0].position)) as above:
            whole = await anext(above, None) or []
        return next((found for found in _found(whole) if found.item.id == item_id), None)


def _found(group: list[StoredMessage]) -> list[Found]:
    if not group:
        return []
    by_position = {kept.position: kept for kept in group}
    first, last = group[0].position, group[-1].position
    return [
        Found(item=item, kept=by_position[item.position], first=first, last=last)
        for item in items_of([kept.message for kept in group], first)
    ]
