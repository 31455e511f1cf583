"""Ids of conversations and turns, and the partition that both share.

The partition never changes. It determines the Redis hash slot of all keys of a conversation and,
modulo the number of queues, the Celery queue of its turns. A turn's id starts with its partition,
so that its id alone is enough to find it.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Final
from zlib import crc32

from agentapi.decoding.shown import shown
from agentapi.errors import InvalidConversationId, InvalidInput

PARTITIONS: Final = 256
MAX_CONVERSATION_ID: Final = 512
MAX_KEY: Final = 512

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TURN_ID = re.compile(r"(?P<partition>\d{3})-[0-9a-f]{32}")


def create_conversation_id() -> str:
    """A new, unique conversation id (a random UUID)."""
    return str(uuid.uuid4())


def check_conversation_id(conversation_id: object) -> str:
    """Return the id if it is valid.

    Args:
        conversation_id: Any non-empty text of at most 512 characters without control
            characters, such as ``user:42``.

    Raises:
        InvalidConversationId: It is not valid; the message says why.
    """
    expected = f"expected text of 1 to {MAX_CONVERSATION_ID} characters without control characters"
    if not isinstance(conversation_id, str):
        raise InvalidConversationId(
            f"conversation_id is a {type(conversation_id).__name__}: {expected}; "
            "create_conversation_id() makes a valid one"
        )
    if not 0 < len(conversation_id) <= MAX_CONVERSATION_ID:
        raise InvalidConversationId(
            f"conversation_id has {len(conversation_id)} characters: {expected}; "
            "create_conversation_id() makes a valid one"
        )
    if found := _CONTROL.search(conversation_id):
        raise InvalidConversationId(
            f"conversation_id has the control character {found.group()!r} "
            f"at position {found.start()}: {expected}"
        )
    try:
        conversation_id.encode()
    except UnicodeEncodeError as error:
        raise InvalidConversationId(
            f"conversation_id is not valid Unicode at position {error.start}: {expected}"
        ) from error
    return conversation_id


def partition_of(conversation_id: str) -> int:
    """The conversation's partition, 0 to 255."""
    return crc32(conversation_id.encode()) % PARTITIONS


def create_turn_id(conversation_id: str, idempotency_key: str | None = None) -> str:
    """A turn's id: its partition and 32 hexadecimal digits.

    Args:
        conversation_id: The turn's conversation, valid.
        idempotency_key: The caller's key for this turn. The same key in the same conversation gives
            the same id, so a repeated call finds the existing turn.
    """
    if idempotency_key is None:
        digits = uuid.uuid4().hex
    else:
        text = f"{conversation_id}\x00{idempotency_key}"
        digits = hashlib.sha256(text.encode()).hexdigest()[:32]
    return f"{partition_of(conversation_id):03d}-{digits}"


def conversation_id_of_key(idempotency_key: str) -> str:
    """The conversation id for a turn that was enqueued with a key but without a conversation.

    Derived from the key, so that a repeated call finds the same conversation.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"agentapi:{idempotency_key}"))


def partition_of_turn(turn_id: str) -> int:
    """The partition in a turn's id.

    Raises:
        InvalidInput: The text is not a turn id.
    """
    match = _TURN_ID.fullmatch(turn_id) if isinstance(turn_id, str) else None
    if match is None or int(match["partition"]) >= PARTITIONS:
        raise InvalidInput(
            f"{shown(turn_id)} is not a turn id: expected three digits below {PARTITIONS}, a dash "
            "and 32 hexadecimal digits, as TurnHandle.turn_id gives it"
        )
    return int(match["partition"])
