"""The methods of the `ConversationStore` as runs of scripts, for threads and event loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from agentapi.conversation.messages import dumps, loads
from agentapi.decoding.records import reading as reading_record
from agentapi.ids import partition_of
from agentapi.redis.keys import conversation_keys, copies_key, turn_keys
from agentapi.redis.scripts import ScriptRun
from agentapi.settings import Settings
from agentapi.stores.conversations import (
    LEFT_TTL,
    WIPE_BYTES,
    WIPE_MESSAGES,
    ConversationRecord,
    Dropped,
    ForgottenTurn,
    Fork,
    Measured,
    OpenConversation,
    Page,
    Place,
    Reading,
    Search,
    SearchOn,
    StoredMessage,
    Unended,
    Wiped,
)
from agentapi.stores.redis.values import milliseconds
from agentapi.stores.refusals import unexpected


def open_conversation(
    opening: OpenConversation, settings: Settings
) -> ScriptRun[ConversationRecord | None]:
    """Run of `ConversationStore.open`."""
    keys = conversation_keys(opening.conversation_id)
    idle = (opening.idle_time or settings.memory_ttl or 0) if opening.create else 0
    metadata = opening.metadata

    def read(reply: Any) -> ConversationRecord | None:
        match reply:
            case [b"open", created, stored]:
                return record_from(created, stored)
            case [b"missing"]:
                return None
            case _:
                raise unexpected("open", reply)

    return ScriptRun(
        "open",
        [keys.meta, keys.messages, keys.inbox],
        [
            opening.tenant_id or "",
            opening.user_id or "",
            "any" if opening.create else "known",
            "" if metadata is None else orjson.dumps(dict(metadata)),
            milliseconds(idle),
            opening.operation,
            *map(dumps, opening.messages),
        ],
        read,
    )


def record_from(created: bytes | str, metadata: bytes | str) -> ConversationRecord:
    """Read the stored record of a conversation.

    Raises:
        UnreadableRecord: It was not written by any release.
    """
    with reading_record("the meta hash of a conversation", remedy="delete the conversation"):
        found = orjson.loads(metadata)
        if not isinstance(found, dict):
            raise TypeError("metadata is not an object")
        return ConversationRecord(created_at=int(created) / 1000, metadata=found)


def remove(
    conversation_id: str, tenant_id: str | None, message: StoredMessage, operation: str
) -> ScriptRun[bool]:
    """Run of `ConversationStore.remove`."""
    keys = conversation_keys(conversation_id)
    args = [tenant_id or "", message.position, message.raw, operation]
    return ScriptRun(
        "remove", [keys.meta, keys.messages], args, lambda reply: bool(reply[0] == b"removed")
    )


def drop(
    conversation_id: str, tenant_id: str | None, operation: str, expected: int | None
) -> ScriptRun[Dropped | Unended | None]:
    """Run of `ConversationStore.drop`."""
    keys = conversation_keys(conversation_id)
    args = [
        *(tenant_id or "", conversation_id, keys.turns, -1 if expected is None else expected),
        milliseconds(LEFT_TTL),
    ]
    left = f"{keys.messages}:dropped:{operation}"

    def read(reply: Any) -> Dropped | Unended | None:
        match reply:
            case [b"busy", turn_ids]:
                return Unended(turn_ids=[turn_id.decode() for turn_id in turn_ids])
            case [b"dropped"]:
                return Dropped(conversation_id=conversation_id, left=left)
            case [b"changed" | b"missing"]:
                return None
            case _:
                raise unexpected("drop", reply)

    return ScriptRun(
        "drop",
        [
            *(keys.meta, keys.messages, keys.inbox, keys.lease, keys.due, left),
            copies_key(partition_of(conversation_id)),
        ],
        [*args, ""],
        read,
        # Whoever deletes a conversation needs no history.
        if_lost=[*args, "lost"],
    )


def wipe(dropped: Dropped, step: str) -> ScriptRun[Wiped]:
    """Run of `ConversationStore.wipe`."""
    prefix = conversation_keys(dropped.conversation_id).turns
    args = [dropped.conversation_id, prefix, WIPE_MESSAGES, WIPE_BYTES, step]

    def read(reply: Any) -> Wiped:
        left, *turns = reply
        return Wiped(
            left=left, turns=[_forgotten(*pair) for pair in zip(*[iter(turns)] * 2, strict=True)]
        )

    # A lost turn has nothing left to delete.
    return ScriptRun("wipe", [dropped.left], [*args, ""], read, if_lost=[*args, "lost"])


def forget(
    conversation_id: str, turn_id: str, operation: str
) -> ScriptRun[ForgottenTurn | Unended | None]:
    """Run of `ConversationStore.forget`."""

    def read(reply: Any) -> ForgottenTurn | Unended | None:
        match reply:
            case [b"forgotten", accepted, size]:
                return _forgotten(accepted, size)
            case [b"running"]:
                return Unended(turn_ids=[turn_id])
            case [b"missing"]:
                return None
            case _:
                raise unexpected("forget", reply)

    return ScriptRun("forget", [turn_keys(turn_id).turn], [conversation_id, operation], read)


def relabel(
    conversation_id: str, turn_id: str, metadata: Mapping[str, Any], operation: str, part: int
) -> ScriptRun[bool]:
    """Run of `ConversationStore.relabel`."""
    field = f"part:{part}" if part else "metadata"
    return ScriptRun(
        "relabel",
        [turn_keys(turn_id).turn],
        [conversation_id, operation, field, orjson.dumps(dict(metadata))],
        lambda reply: bool(reply[0] == b"changed"),
    )


def _forgotten(accepted: bytes, size: int) -> ForgottenTurn:
    return ForgottenTurn(accepted_at=int(accepted) / 1000, input_bytes=size)


def continue_from(
    conversation_id: str, turn_id: str, operation: str, *, take: bool
) -> ScriptRun[bool]:
    """Run of `ConversationStore.continue_from`."""
    keys = conversation_keys(conversation_id)
    return ScriptRun(
        "continue_from",
        [turn_keys(turn_id).turn, keys.messages, keys.inbox],
        [turn_id, operation, "take" if take else "ask"],
        lambda reply: bool(reply[0] == b"here"),
    )


def fork(fork: Fork, copied: int) -> ScriptRun[int | None]:
    """Run of `ConversationStore.fork`."""
    source, copy = conversation_keys(fork.source), conversation_keys(fork.copy)
    return ScriptRun(
        "fork",
        [source.messages, copy.meta, copy.messages],
        [
            fork.tenant_id or "",
            fork.user_id or "",
            milliseconds(fork.idle_time),
            fork.place.position,
            fork.place.digest,
            fork.step_bytes,
            copied,
        ],
        lambda reply: None if reply[0] == b"changed" else int(reply[1]),
    )


def page(conversation_id: str, tenant_id: str | None, reading: Reading) -> ScriptRun[Page | None]:
    """Run of `ConversationStore.page`."""
    keys = conversation_keys(conversation_id)

    def read(reply: Any) -> Page | None:
        if reply[0] == b"missing":
            return None
        _, total, *found = reply
        at, step = (reading.first, 1) if reading.up else (min(reading.last, total - 1), -1)
        messages = [
            StoredMessage(position=at + step * number, raw=raw, message=loads(raw))
            for number, raw in enumerate(found)
        ]
        return Page(total=total, messages=messages)

    args = [reading.first, reading.last, reading.max_bytes, "up" if reading.up else "down"]
    return ScriptRun("page", [keys.meta, keys.messages], [tenant_id or "", *args], read)


def seek(
    conversation_id: str, tenant_id: str | None, search: Search
) -> ScriptRun[Place | SearchOn | None]:
    """Run of `ConversationStore.seek`."""
    keys = conversation_keys(conversation_id)
    before = -1 if search.before is None else search.before

    def read(reply: Any) -> Place | SearchOn | None:
        match reply:
            case [b"found", position, digest]:
                return Place(position=position, digest=digest.decode())
            case [b"more", position]:
                return SearchOn(before=position)
            case [b"none" | b"missing"]:
                return None
            case _:
                raise unexpected("seek", reply)

    return ScriptRun(
        "seek",
        [keys.meta, keys.messages],
        [tenant_id or "", search.turn_id, before, search.max_messages, search.max_bytes],
        read,
    )


def measure(
    conversation_id: str, tenant_id: str | None, reading: Reading
) -> ScriptRun[Measured | None]:
    """Run of `ConversationStore.measure`."""
    keys = conversation_keys(conversation_id)
    return ScriptRun(
        "measure",
        [keys.meta, keys.messages],
        [tenant_id or "", reading.first, reading.last, reading.max_bytes],
        lambda reply: None if reply[0] == b"missing" else Measured(end=reply[1], size=reply[2]),
    )
