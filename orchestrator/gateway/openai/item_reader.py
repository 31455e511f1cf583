"""Reads the items of a conversation, with only as many messages as a page needs."""

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
from orchestrator.gateway.openai.items import Item, items_of, list_object

PAGE_BYTES: Final = 4_194_304
"""Bytes of stored messages after which a page of items ends early."""

_MAX_POSITIONS: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An item, and its place in the history.

    Attributes:
        item: The item.
        kept: The message that it shows.
        first: Position of the first message of its turn.
        last: Position of the last message of its turn.
    """

    item: Item
    kept: StoredMessage
    first: int
    last: int


class Positions:
    """Where items were last seen. Only a hint: readers check what is there now."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    def get(self, conversation_id: str, item_id: str) -> int | None:
        """The position of the last message of an item's turn, if known."""
        return self._known.get((conversation_id, item_id))

    def keep(self, conversation_id: str, item_id: str, position: int) -> None:
        """Remember a position; beyond the limit, forget the oldest."""
        self._known[(conversation_id, item_id)] = position
        self._known.move_to_end((conversation_id, item_id))
        if len(self._known) > _MAX_POSITIONS:
            self._known.popitem(last=False)


class ItemReader:
    """Reads the items of one history."""

    def __init__(self, history: History, conversation_id: str, positions: Positions) -> None:
        self._history = history
        self._conversation_id = conversation_id
        self._positions = positions

    async def page(self, *, after: str | None, limit: int, order: str) -> dict[str, Any]:
        """A page of the list, which is short if its items are large.

        Args:
            after: Id of the last item of the previous page.
            limit: Maximum number of items.
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
                    return list_object(found, more=True)
                found.append(item.item.item)
                size += len(item.kept.raw)
                self._positions.keep(self._conversation_id, item.item.id, item.last)
        return list_object(found, more=False)

    async def find(self, item_id: str) -> Found | None:
        """An item by its id; None if there is none.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        # The hint is checked by reading that place: messages before it may have been removed.
        known = self._positions.get(self._conversation_id, item_id)
        if known is not None and (found := await self._at(item_id, known)) is not None:
            return found
        name = name_of_item(item_id)
        if isinstance(name, int):
            return await self._at(item_id, name)
        place = await self._history.seek(name) if name is not None else None
        return await self._at(item_id, place.position) if place is not None else None

    async def _items(self, after: str | None, *, up: bool) -> AsyncGenerator[Found, None]:
        """All items, or those after one, in either direction."""
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
        """Find the item in the group of messages at a position."""
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
