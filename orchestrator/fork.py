"""Running a turn again from one of its steps, in a copy of its conversation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    Message,
    ToolMessage,
    UserMessage,
    from_dict,
)
from agentapi.conversation.user_input import UserInput, check_message, content_of
from agentapi.errors import InvalidInput, TurnNotForkable
from agentapi.ids import MAX_CONVERSATION_ID, create_turn_id, partition_of
from agentapi.settings import Settings
from agentapi.stores import (
    Fork,
    OpenConversation,
    Place,
    Reading,
    Search,
    StoredMessage,
    TurnPast,
    TurnStore,
)
from agentapi.turns import ForkOrigin, NewTurn, OnBusy, Turn, TurnKind
from orchestrator.timeline import Timeline, TimelineStep
from orchestrator.timeline_reader import timeline_of

_STEP_BYTES: Final = 65_536
"""Bytes that Redis copies in one step. A step blocks all other clients for about a millisecond."""

_SEARCHED: Final = 1_000
_READ_BYTES: Final = 1_048_576
"""Maximum number of messages, and of their bytes, that one step reads."""

_FOREVER: Final = -1.0

_SUFFIX: Final = re.compile(r"~[0-9a-f]{10}$")


@dataclass(frozen=True, kw_only=True, slots=True)
class ForkRequest:
    """A turn to run again.

    Attributes:
        turn_id: The turn.
        step: How many of its steps to copy, as counted in its timeline. They are not run again; 0
            begins with the message. A fork cannot begin where a call has no result yet, or after
            the reply.
        message: The message to send instead: text, or a list of texts, `Image` and `File`. Text
            keeps the turn's images and files; None keeps everything.
        key: Identifies the fork: a repeat with the same key returns the same fork.
        by: Who asks for it; stored with the new turn.
    """

    turn_id: str
    key: str
    step: int = 0
    message: UserInput | None = None
    by: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ForkPlan:
    """The data to write for a fork.

    Attributes:
        source: The turn that is run again.
        turn: The new turn.
        place: The last message of the history to copy; None if no message precedes the turn.
    """

    source: Turn
    turn: NewTurn
    place: Place | None


def plan_fork(store: TurnStore, settings: Settings, request: ForkRequest) -> ForkPlan:
    """Plan the writes of a fork, without changing anything.

    Raises:
        InvalidInput: The step or the message is not valid.
        TurnNotForkable: The required data is not stored.
        TurnNotFound: The turn ended longer than `turn_retention` ago.
        StoreUnavailable: Redis is out of reach.
    """
    past = store.past(request.turn_id)
    source = past.turn
    if source.kind is not TurnKind.AGENT:
        raise TurnNotForkable(
            f"turn {source.turn_id} asks several agents (gather or chain): fork one of the turns "
            "that it waits for, or enqueue it again"
        )
    if not source.stored:
        raise TurnNotForkable(
            f"turn {source.turn_id} was created with store=false and is not kept: enqueue its "
            "message again"
        )
    timeline = timeline_of(past)
    begun = _messages_before(past, timeline, request.step)
    conversation_id = fork_id(source.conversation_id, f"{source.turn_id}:{request.key}")
    text, attachments, blobs = _said(store, settings, source, request.message)
    turn = NewTurn(
        turn_id=create_turn_id(conversation_id, request.key),
        conversation_id=conversation_id,
        agent=_agent_at(source, timeline, request.step),
        input=text,
        user_id=source.user_id,
        tenant_id=source.tenant_id,
        metadata=source.metadata,
        stream=source.stream,
        on_abort=source.on_abort,
        on_failure=source.on_failure,
        budget=source.budget,
        attachments=attachments,
        blobs=blobs,
        client_tools=source.client_tools,
        prior=begun,
        context=source.context,
        options=source.options,
        on_busy=OnBusy.ENQUEUE,
        idle_time=settings.memory_ttl or _FOREVER,
        forked_from=ForkOrigin(turn_id=source.turn_id, step=request.step, by=request.by),
    )
    return ForkPlan(source=source, turn=turn, place=_place_before(store, past))


def copy_history(store: TurnStore, settings: Settings, plan: ForkPlan) -> None:
    """Copy the messages before the turn. A repeated call continues where the copy ends.

    Until the fork's turn is enqueued, the copy expires after `turn_retention`.

    Raises:
        TurnNotForkable: The history was changed in the meantime.
        StoreUnavailable: Redis is out of reach.
    """
    source, new = plan.source, plan.turn
    if plan.place is not None:
        fork = Fork(
            source=source.conversation_id,
            copy=new.conversation_id,
            tenant_id=new.tenant_id,
            user_id=new.user_id,
            place=plan.place,
            idle_time=settings.turn_retention,
            step_bytes=_STEP_BYTES,
        )
        copied: int | None = 0
        while copied is not None and copied <= plan.place.position:
            copied = store.conversations.fork(fork, copied)
        if copied is None:
            raise _changed(source)
    known = store.conversations.find(source.conversation_id, source.tenant_id)
    if known is not None and known.metadata:
        store.conversations.open(
            OpenConversation(
                conversation_id=new.conversation_id,
                tenant_id=new.tenant_id,
                create=True,
                user_id=new.user_id,
                metadata=known.metadata,
                idle_time=settings.turn_retention,
            )
        )


def size_of_history(store: TurnStore, source: Turn, last: int, limit: int) -> int:
    """Bytes of the history up to a position. Counting stops once the limit is exceeded.

    Raises:
        StoreUnavailable: Redis is out of reach.
    """
    size = at = 0
    while at <= last and size <= limit:
        reading = Reading(first=at, last=last, max_bytes=_READ_BYTES)
        piece = store.conversations.measure(source.conversation_id, source.tenant_id, reading)
        if piece is None or piece.end <= at:
            break
        size, at = size + piece.size, piece.end
    return size


def fork_id(conversation_id: str, name: str) -> str:
    """The id of a copy of a conversation: ``user:42~3f9a1c2e7b``.

    It is derived from a key, so that a repeat finds the same copy. It is in the partition of the
    original, because a script copies only within one partition.
    """
    base = _SUFFIX.sub("", conversation_id)
    number = 0
    while True:
        digits = hashlib.sha256(f"{name}:{number}".encode()).hexdigest()[:10]
        made = f"{base[: MAX_CONVERSATION_ID - 11]}~{digits}"
        if partition_of(made) == partition_of(conversation_id):
            return made
        number += 1


def forkable_steps(timeline: Timeline) -> list[int]:
    """The numbers of steps at which a fork may begin: before each model call."""
    return [number for number in range(len(timeline.steps) + 1) if _may_begin(timeline, number)]


def _may_begin(timeline: Timeline, number: int) -> bool:
    steps = [step for step in timeline.steps if not step.repeated]
    if number == 0:
        return True
    before = [step for step in steps if step.index < number]
    if len(before) != number or not _known(timeline, before):
        return False
    last = before[-1]
    if last.kind == "model":
        # The turn is over after a reply. A response that was cut off continues in the next step.
        return last.outcome == "rejected"
    return _open_calls(before) == 0


def _known(timeline: Timeline, before: Sequence[TimelineStep]) -> bool:
    """Whether the messages of these steps are stored. Rejected replies and partial ones are not
    needed."""
    return timeline.complete and all(
        step.message is not None or (step.kind == "model" and step.calls == 0) for step in before
    )


def _open_calls(steps: Sequence[TimelineStep]) -> int:
    """The number of calls without a result."""
    asked = sum(step.calls for step in steps)
    return asked - sum(step.kind == "tool" for step in steps)


def _messages_before(past: TurnPast, timeline: Timeline, number: object) -> list[Message]:
    """The messages of the first steps, each result after its response.

    Raises:
        InvalidInput: A fork cannot begin at that step.
        TurnNotForkable: The steps are no longer stored.
    """
    steps = [step for step in timeline.steps if not step.repeated]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= len(steps):
        raise InvalidInput(
            f"step is {number!r}: turn {timeline.turn_id} has {len(steps)} steps, expected a "
            f"number from 0 to {len(steps)}"
        )
    if number and not _may_begin(timeline, number):
        before = [step for step in steps if step.index < number]
        if not _known(timeline, before):
            raise TurnNotForkable(
                f"the steps of turn {timeline.turn_id} are not kept, because it was cancelled or "
                "has too many: fork it from step 0"
            )
        may = ", ".join(map(str, forkable_steps(timeline)))
        raise InvalidInput(
            f"a fork cannot begin at step {number} of turn {timeline.turn_id}: a call would lack "
            f"its result, or the turn would already be complete; it can begin at {may}"
        )
    said = [step for step in steps[:number] if step.message and step.outcome != "rejected"]
    results = {
        step.call_id: from_dict(step.message)
        for step in said
        if step.kind == "tool" and step.message
    }
    messages: list[Message] = list(past.turn.prior)
    for step, following in zip_longest(said, said[1:]):
        # `step` is never None: `zip_longest` pads only `following`, after the last step.
        if step is None or step.kind == "tool" or step.message is None:
            continue
        # The next response contains the text of one that was cut off.
        if step.kind == "model" and not step.calls and following and following.kind == "model":
            continue
        message = from_dict(step.message)
        messages.append(message)
        if isinstance(message, AssistantMessage):
            messages += [results[c.id] for c in message.tool_calls if c.id in results]
    return [message for message in messages if isinstance(message, _SPOKEN)]


_SPOKEN: Final = (AssistantMessage, ToolMessage, UserMessage)


def _agent_at(source: Turn, timeline: Timeline, number: int) -> str:
    """The agent that answers from that step on."""
    handed = [step.handoff for step in timeline.steps if step.handoff]
    before = [step.handoff for step in timeline.steps if step.handoff and step.index < number]
    if before:
        return before[-1] or source.agent
    # A turn without a handoff was answered by the agent that the conversation was handed over to.
    return source.agent if handed or source.answered_by is None else source.answered_by


def _said(
    store: TurnStore, settings: Settings, source: Turn, message: UserInput | None
) -> tuple[str, tuple[Attachment, ...], dict[str, bytes]]:
    text = source.input
    if message is not None:
        content = content_of(message, settings.max_attachment_bytes)
        text = check_message(content.text, settings.max_message_bytes)
        if not isinstance(message, str):
            return text, tuple(content.attachments), dict(content.blobs)
    names = [each.blob for each in source.attachments if each.blob]
    blobs = store.blobs(source.conversation_id, names) if names else {}
    if missing := [name for name in names if name not in blobs]:
        blobs |= store.set_aside(source.turn_id, missing)
    if any(name not in blobs for name in names):
        raise TurnNotForkable(
            f"the images and files of turn {source.turn_id} are no longer stored: pass a message "
            "with its own"
        )
    return text, tuple(source.attachments), blobs


def _place_before(store: TurnStore, past: TurnPast) -> Place | None:
    """The last message before the turn's own; None if there is none.

    Raises:
        TurnNotForkable: The turn's messages are no longer in the history.
    """
    turn = past.turn
    last = _newest_of(store, turn)
    if last is not None:
        return _before(store, turn, last.position)
    if not turn.status.ended:
        # The whole history so far comes before it.
        page = store.conversations.page(
            turn.conversation_id, turn.tenant_id, Reading(up=False, max_bytes=1)
        )
        newest = page.messages[0] if page and page.messages else None
        return _place(newest) if newest else None
    if past.place is None:
        raise _changed(turn)
    return past.place if past.place.position >= 0 else None


def _newest_of(store: TurnStore, turn: Turn) -> Place | None:
    before: int | None = None
    while True:
        search = Search(
            turn_id=turn.turn_id, before=before, max_messages=_SEARCHED, max_bytes=_READ_BYTES
        )
        found = store.conversations.seek(turn.conversation_id, turn.tenant_id, search)
        if found is None or isinstance(found, Place):
            return found
        before = found.before


def _before(store: TurnStore, turn: Turn, position: int) -> Place | None:
    """The last message before a turn's messages, which are next to each other."""
    while position >= 0:
        reading = Reading(last=position, up=False, max_bytes=_READ_BYTES)
        page = store.conversations.page(turn.conversation_id, turn.tenant_id, reading)
        for stored in page.messages if page else ():
            position = stored.position - 1
            if stored.message.turn_id != turn.turn_id:
                return _place(stored)
        if page is None or not page.messages:
            raise _changed(turn)
    return None


def _place(stored: StoredMessage) -> Place:
    # Hash the stored bytes: an older release may have serialised the message differently.
    digest = hashlib.sha1(stored.raw, usedforsecurity=False).hexdigest()
    return Place(position=stored.position, digest=digest)


def _changed(turn: Turn) -> TurnNotForkable:
    return TurnNotForkable(
        f"the messages before turn {turn.turn_id} are no longer stored: its conversation was "
        "reset, changed or forgotten; enqueue its message again"
    )
