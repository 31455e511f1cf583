"""`Orchestrator`: enqueue turns from any process, and get their replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from agentapi.conversation.user_input import UserInput
from orchestrator.flows import Link
from orchestrator.handle import GatherHandle, TurnHandle
from orchestrator.producer_data import DataProducer
from orchestrator.turn_request import (
    FlowOptions,
    ForkOptions,
    TurnOptions,
    TurnRequest,
    fork_request,
)

if TYPE_CHECKING:
    from agentapi import Agent


class Orchestrator(DataProducer):
    """Enqueues turns and returns a handle for each. Safe to share between threads.

    Attributes:
        settings: The producer's settings.
        store: The turn store it writes to.
        follower: Delivers turns' events to waiting readers.
    """

    def enqueue(
        self, agent: str | Agent, message: UserInput, **options: Unpack[TurnOptions]
    ) -> TurnHandle:
        """Send a message to an agent; returns when the turn is safely stored in Redis.

        Args:
            agent: Name of a registered agent, or the agent itself.
            message: What the user says: text, or a list of texts, `Image` and `File`.
            options: `conversation_id`, `user_id`, `tenant_id`, `idempotency_key`, `metadata`,
                `stream`, `on_busy`, `on_abort`, `deadline`, `context`, `client_tools`; see
                `TurnRequest`.

        Raises:
            InvalidInput: An argument is not valid (see `TurnRequest` and its subclasses
                `InvalidMessage`, `InvalidConversationId`, `InvalidContext`, `UnknownAgent`).
            ConversationBusy: The conversation has too many turns that have not ended, or it has at
                least one and `on_busy` is ``reject``.
            TenantMismatch: The conversation belongs to another tenant.
            StoreUnavailable: Redis is out of reach. The turn may still have been accepted: repeat
                the call with an `idempotency_key`, and it is accepted only once.
        """
        return self.enqueue_many([TurnRequest(agent=agent, message=message, **options)])[0]

    def enqueue_many(self, requests: Sequence[TurnRequest]) -> list[TurnHandle]:
        """Enqueue many turns with one pipeline to Redis and one connection to the broker.

        All requests are checked before the first is written. Turns of one conversation run in
        the order given. Raises the same errors as `enqueue`, for the first turn that is refused;
        the other turns are accepted and will run.
        """
        return [TurnHandle(self, *accepted) for accepted in self.accept(requests)]

    def fork(self, turn_id: str, **options: Unpack[ForkOptions]) -> TurnHandle:
        """Run a turn again from one of its steps, optionally with another message.

        The new turn runs in a copy of the conversation with the messages before the turn; the
        original does not change. Copied steps are not run again. User, tenant, metadata, context,
        client tools and options are the same as the turn's. The new turn has no deadline and no
        parent.

        Args:
            turn_id: The turn, whether or not it has ended.
            options: `step` (how many steps to copy, 0 by default; `timeline` shows them),
                `message` (in place of the user's; text keeps the turn's images and files),
                `idempotency_key` (a repeat with the same key returns the first fork) and `by` (who
                asks for the fork, stored in `Turn.forked_from`).

        Raises:
            InvalidInput: A fork cannot begin at that step, or the message is not valid.
            TurnNotForkable: The steps, the history or the attachments are no longer stored.
            TurnNotFound: The turn ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach. Repeat the call with an `idempotency_key`.
        """
        return TurnHandle(self, *self.accept_fork(fork_request(turn_id, options)))

    def gather(self, turns: Sequence[Link], **options: Unpack[FlowOptions]) -> GatherHandle:
        """Ask several agents in parallel, each in its own conversation.

        A turn of its own waits for the replies. It occupies no worker while it waits, survives the
        death of any process, and cancels the other turns if it is cancelled.

        Args:
            turns: Agents and their messages, as `Ask` or as pairs; at most `max_children`.
            options: `user_id`, `tenant_id`, `idempotency_key`, `metadata`, `deadline`, `context`,
                for all of them; see `TurnRequest`.

        Raises:
            InvalidInput: There are none, too many, or one is not valid.
            StoreUnavailable: See `enqueue`.
        """
        return GatherHandle(self, *self.accept_gather(turns, **options))

    def chain(self, turns: Sequence[Link], **options: Unpack[FlowOptions]) -> TurnHandle:
        """Ask agents one after the other; each gets the reply of the previous one.

        The result is the last reply. If a link fails, the chain fails with ``chain_broken`` and
        names the link.

        Args:
            turns: The first link with its message; later ones as an agent alone, or with a message
                in which ``{reply}`` stands for the previous reply. At most 100.
            options: `user_id`, `tenant_id`, `idempotency_key`, `metadata`, `deadline`, `context`,
                for all of them; see `TurnRequest`.

        Raises:
            InvalidInput: There are none, too many, or one is not valid.
            StoreUnavailable: See `enqueue`.
        """
        return TurnHandle(self, *self.accept_chain(turns, **options))

    def turn(self, turn_id: str) -> TurnHandle:
        """The handle of a turn that any process enqueued.

        Raises:
            InvalidInput: The text is not a turn id.
            TurnNotFound: The turn does not exist.
            StoreUnavailable: Redis is out of reach.
        """
        return TurnHandle(self, turn_id, self.store.turn(turn_id).conversation_id)
