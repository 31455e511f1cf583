"""What a viewer of the console may see. This is the only place in the console that separates
tenants.

Pages get a `ConsoleView` and nothing behind it. Conversations have their ids as in Redis, for
viewers of all tenants and of one alike, so that addresses can be shared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from typing import Any, Final, TypeVar

from agentapi.errors import InvalidInput, TurnNotFound
from agentapi.stores import (
    ConversationQuery,
    ConversationSummary,
    Paged,
    TurnQuery,
    TurnSummary,
)
from agentapi.turns import PendingCall, Turn
from orchestrator.gateway.console.viewer import Viewer
from orchestrator.gateway.http.errors import NotFound, public_text
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.tenants.names import internal_id, public_id
from orchestrator.timeline import Timeline

T = TypeVar("T")

MAX_AGE: Final = 2.0
"""Maximum age in seconds of the cached answer for a part of a page that is polled."""

PART_MISSING: Final = (
    "Part of the store does not respond. Its data is missing on this page until it is back."
)
"""Shown to viewers who must not learn about servers."""


class ConsoleView:
    """Everything that a viewer may see: all tenants with `operate`, otherwise the key's tenant.

    Attributes:
        gateway: The process's services.
        viewer: The viewer.
    """

    def __init__(self, gateway: Gateway, viewer: Viewer) -> None:
        self.gateway = gateway
        self.viewer = viewer

    def sees(self, tenant_id: str | None) -> bool:
        """Whether the viewer may see data of a tenant; None means data without a tenant."""
        return self.viewer.operates or tenant_id == self.viewer.tenant

    async def turn(self, turn_id: str) -> Turn:
        """A turn.

        Raises:
            TurnNotFound: It does not exist, or the viewer does not see its tenant.
            StoreUnavailable: Redis is out of reach.
        """
        try:
            turn = await self.gateway.call(lambda o: o.store.turn(turn_id))
        # The same answer in all cases: a different one would reveal which ids other tenants have.
        except (TurnNotFound, InvalidInput):
            turn = None
        if turn is None or not self.sees(turn.tenant_id):
            raise TurnNotFound(
                f"there is no turn {turn_id!r}: it was never accepted, was deleted, or ended "
                "longer than AGENTAPI_TURN_RETENTION ago"
            )
        return turn

    async def conversation(self, conversation_id: str) -> ConversationSummary:
        """A conversation, by its id in Redis.

        Raises:
            NotFound: It does not exist, or the viewer does not see its tenant.
            StoreUnavailable: Redis is out of reach.
        """
        found = await self.gateway.conversations.summary(conversation_id)
        if found is None or not self.sees(found.tenant_id):
            raise NotFound(
                "there is no such conversation: it was never created, or has been deleted",
                code="conversation_not_found",
            )
        return found

    async def turns(
        self, query: TurnQuery, limit: int, cursor: str | None = None, *, fresh: bool = True
    ) -> Paged[TurnSummary]:
        """A page of the turns that the viewer sees, newest first.

        While a cluster shard is unavailable, the page has the turns of the others; see `gap`.

        Args:
            query: Selects the turns.
            limit: Maximum number of turns.
            cursor: From the previous page.
            fresh: Whether to read again, instead of returning another browser's recent answer.

        Raises:
            InvalidInput: The cursor is not valid.
            ConfigurationError: Lists are switched off.
            StoreUnavailable: Redis is out of reach.
        """
        own = self._own(query)

        async def read() -> Paged[TurnSummary]:
            return await self.gateway.call(
                lambda o: o.store.lists.turns(own, limit, cursor, partial=True)
            )

        return await self._shared((own, limit, cursor), fresh, read)

    async def conversations(
        self, query: ConversationQuery, limit: int, cursor: str | None = None, *, fresh: bool = True
    ) -> Paged[ConversationSummary]:
        """A page of the conversations that the viewer sees, newest first. Raises the same errors as
        `turns`."""
        own = query if self.viewer.operates else replace(query, tenant_id=self.viewer.tenant)

        async def read() -> Paged[ConversationSummary]:
            lists = self.gateway.orchestrator.store.lists
            return await self.gateway.call(
                lambda _: lists.conversations(own, limit, cursor, partial=True)
            )

        return await self._shared((own, limit, cursor), fresh, read)

    async def approvals(
        self, query: TurnQuery, limit: int, cursor: str | None = None, *, fresh: bool = True
    ) -> Paged[PendingCall]:
        """A page of tool calls that wait for a decision. Raises the same errors as `turns`."""
        own = self._own(query)

        async def read() -> Paged[PendingCall]:
            return await self.gateway.call(
                lambda o: o.store.lists.approvals(own, limit, cursor, partial=True)
            )

        return await self._shared(("approvals", own, limit, cursor), fresh, read)

    def gap(self, page: Paged[Any]) -> str | None:
        """The note above a list with a missing part."""
        if page.missing is None:
            return None
        return f"{page.missing}." if self.viewer.operates else PART_MISSING

    async def timeline(self, turn_id: str, *, fresh: bool = True) -> Timeline:
        """The timeline of a turn that `turn` has returned, limited to what the viewer may see.

        Raises:
            TurnNotFound: It no longer exists.
            UnreadableRecord: It was written by a newer release.
            StoreUnavailable: Redis is out of reach.
        """

        async def read() -> Timeline:
            return await self.gateway.call(lambda o: o.timeline(turn_id))

        found = await self._shared(("timeline", turn_id), fresh, read)
        found = found if self.viewer.content else found.without_content()
        return found if self.viewer.operates else found.without_workers()

    async def _shared(self, key: Hashable, fresh: bool, read: Callable[[], Awaitable[T]]) -> T:
        # The key contains the tenant, so that no answer reaches a viewer who may see less.
        return await self.gateway.shared.get(key, 0.0 if fresh else MAX_AGE, read)

    def _own(self, query: TurnQuery) -> TurnQuery:
        return query if self.viewer.operates else replace(query, tenant_id=self.viewer.tenant)

    def name_of(self, conversation_id: str) -> str:
        """A conversation's name on pages; for viewers of one tenant, its id in the API."""
        if self.viewer.operates:
            return conversation_id
        return public_id(self.viewer.tenant, conversation_id) or conversation_id

    async def conversation_id_of(self, name: str) -> str:
        """The id in Redis for a conversation id that a person typed, which may also be an id of the
        tenant's API.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        internal = internal_id(self.viewer.tenant, name)
        if await self.gateway.conversations.summary(name) is None and (
            await self.gateway.conversations.summary(internal) is not None
        ):
            return internal
        return name

    def public(self, text: str, code: str | None) -> str:
        """The text of an error without the ids of other tenants' conversations."""
        return text if self.viewer.operates else public_text(text, code)
