"""A tenant's view of its conversations: their ids, histories and items."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentapi.conversation.messages import Message, dumps
from agentapi.errors import InvalidConversationId
from agentapi.stores.conversations import ConversationRecord
from agentapi.turns import Turn
from orchestrator.gateway.conversations.history import History
from orchestrator.gateway.http.errors import NotFound
from orchestrator.gateway.openai.item_reader import Found, ItemReader
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.tenants.concurrency import RequestSlot
from orchestrator.gateway.tenants.ledger import OVERHEAD
from orchestrator.gateway.tenants.names import internal_id, public_id
from orchestrator.gateway.turn_labels import labels_of

MAX_ID: Final = 256
"""Maximum characters of a conversation's public id."""

_ID = re.compile(r"[^/\x00-\x1f\x7f-\x9f]{1,256}")


class TenantConversations:
    """The conversations that a tenant may see and change.

    Routes use public ids. "Internal" is a conversation's id in Redis.

    Attributes:
        gateway: The process's services.
        tenant: The tenant.
        request_slot: The slot of the request that uses this view, or None.
    """

    def __init__(
        self, gateway: Gateway, tenant: str, request_slot: RequestSlot | None = None
    ) -> None:
        self.gateway = gateway
        self.tenant = tenant
        self.request_slot = request_slot

    def internal(self, conversation_id: str) -> str:
        """The internal id of a conversation.

        Raises:
            InvalidConversationId: The public id is not valid.
        """
        if not _ID.fullmatch(conversation_id):
            raise InvalidConversationId(
                f"conversation_id is not valid: expected 1 to {MAX_ID} characters without slashes "
                "or control characters"
            )
        return internal_id(self.tenant, conversation_id)

    def public(self, internal: str) -> str:
        """The public id of a conversation.

        Raises:
            NotFound: The conversation is another tenant's.
        """
        found = public_id(self.tenant, internal)
        if found is None:
            raise NotFound("there is no such conversation", code="conversation_not_found")
        return found

    def existing(self, conversation_id: str) -> str:
        """The internal id of a conversation that must exist.

        Raises:
            NotFound: The public id is not valid, so no conversation has it.
        """
        try:
            return self.internal(conversation_id)
        except InvalidConversationId:
            raise no_conversation(conversation_id) from None

    async def conversation(self, conversation_id: str) -> ConversationRecord:
        """A conversation of this tenant.

        Raises:
            NotFound: It does not exist, or is another tenant's.
            StoreUnavailable: Redis is out of reach.
        """
        store = self.gateway.conversations
        found = await store.find(self.existing(conversation_id), self.tenant)
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def open(self, conversation_id: str, *, make: bool, **changes: Any) -> ConversationRecord:
        """Find, create or change a conversation; see `Conversations.open`.

        Raises:
            NotFound: It does not exist, or is another tenant's, and `make` is false.
            StoreUnavailable: Redis is out of reach.
        """
        internal = self.internal(conversation_id) if make else self.existing(conversation_id)
        found = await self.gateway.conversations.open(internal, self.tenant, make=make, **changes)
        if found is None:
            raise no_conversation(conversation_id)
        return found

    def history(self, conversation_id: str) -> History:
        """A reader of a conversation's history. This call reads nothing.

        Raises:
            NotFound: The id is not valid.
        """
        return self.history_of(self.existing(conversation_id))

    def history_of(self, internal: str) -> History:
        """The same for an internal id."""
        return History(self.gateway.conversations, internal, self.tenant)

    def items(self, conversation_id: str) -> ItemReader:
        """A reader of a conversation's items. This call reads nothing.

        Raises:
            NotFound: The id is not valid.
        """
        internal = self.existing(conversation_id)
        return ItemReader(self.history_of(internal), internal, self.gateway.positions)

    async def head(self, conversation_id: str) -> str | None:
        """The first turn of a conversation that has not ended; None if there is none.

        Raises:
            NotFound: The id is not valid.
            StoreUnavailable: Redis is out of reach.
        """
        return await self.gateway.conversations.head(self.existing(conversation_id))

    async def append(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        *,
        make: bool,
        metadata: Mapping[str, str] | None = None,
    ) -> ConversationRecord:
        """Append messages to a conversation and count their bytes.

        Raises:
            NotFound: It does not exist, or is another tenant's, and `make` is false.
            RateLimited: The tenant has reached its limit of bytes.
            StoreUnavailable: Redis is out of reach.
        """
        ledger = self.gateway.ledger
        internal = self.internal(conversation_id) if make else self.existing(conversation_id)
        size = OVERHEAD * make + sum(len(dumps(message)) for message in messages)
        # Count before writing, and subtract only after a definite refusal. If Redis did not answer,
        # the messages may be stored; the audit corrects the count.
        await ledger.charge(self.tenant, internal, size)
        try:
            return await self.open(
                conversation_id,
                make=make,
                metadata=metadata,
                operation=uuid.uuid4().hex,
                messages=messages,
            )
        except NotFound:
            await ledger.refund(self.tenant, internal, size)
            raise

    async def remove(self, conversation_id: str, item: Found) -> bool:
        """Remove an item's message from a history.

        Returns:
            Whether the message was still at the position where it was read.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        internal, operation = self.existing(conversation_id), uuid.uuid4().hex
        store = self.gateway.conversations
        removed = await store.remove(internal, self.tenant, item.kept, operation)
        if removed:
            await self.gateway.ledger.refund(self.tenant, internal, len(item.kept.raw))
        return removed

    async def seeds(self, turn: Turn) -> Sequence[Message]:
        """The messages that a turn's request added to the history before the turn's own."""
        seeded = labels_of(turn).seeded
        if not seeded:
            return ()
        history = self.history_of(turn.conversation_id)
        found = await history.messages(0, seeded, self.gateway.settings.gateway_max_body_bytes)
        return found[1] if found is not None else ()


def no_conversation(conversation_id: str) -> NotFound:
    """The error for a conversation that does not exist, or is another tenant's."""
    return NotFound(
        f"there is no conversation {conversation_id!r}: it was never created, or has been deleted",
        code="conversation_not_found",
    )
