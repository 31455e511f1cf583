"""`Orchestrator`: enqueue turns from any process, and get their replies."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter
from pydantic_core import from_json

from agentapi import Agent, Settings, load_settings
from agentapi.agents.definition import AgentDefinition
from agentapi.agents.registry import by_name
from agentapi.conversation.messages import to_dict
from agentapi.conversation.user_input import UserInput
from agentapi.flows import CHAIN, GATHER, flow_message
from agentapi.ids import check_conversation_id
from agentapi.stores import Accepted, CancelOutcome, RedisTurnStore, TurnStore, Wakeup
from agentapi.turns import Decision, OnAbort, OnBusy, Turn
from orchestrator.broker import CeleryWakeups, Wakeups
from orchestrator.eager import eager_backend
from orchestrator.events.follower import EventFollower
from orchestrator.flows import GatherHandle, Link, checked_asks
from orchestrator.handle import TurnHandle
from orchestrator.turn_request import TurnRequest, check_decision, new_turn


class Orchestrator:
    """A producer of turns. Safe to share between threads; connects when first used.

    Attributes:
        settings: What it runs with.
        store: The turn store it writes to.
        follower: Delivers turns' events to whoever waits.
    """

    def __init__(
        self, settings: Settings | None = None, agents: Iterable[Agent] | None = None
    ) -> None:
        """Make a producer.

        Args:
            settings: From the environment and `.env` when not given.
            agents: Agents known here, so that a wrong name is refused at once. When not
                given, every name is taken and a worker that lacks it fails the turn.

        Raises:
            ConfigurationError: A setting is not valid.
            InvalidAgent: Two agents have one name.
        """
        self.settings = settings or load_settings()
        self._agents: Mapping[str, AgentDefinition] = by_name(agents or ())
        self.store: TurnStore
        self._wakeups: Wakeups
        if self.settings.eager:
            self.store, self._wakeups = eager_backend(
                self.settings, self._agents.values() if agents is not None else None
            )
        else:
            self.store = RedisTurnStore(self.settings)
            self._wakeups = CeleryWakeups(self.settings)
        self.follower = EventFollower(self.store)

    @classmethod
    def eager(cls, agents: Iterable[Agent] | None = None, **settings: Any) -> Self:
        """A producer for tests: turns run inside `enqueue`, in memory, with no server.

        Args:
            agents: Agents to run; those of `AGENTAPI_AGENTS` when not given.
            settings: Settings by field name that win over the environment.
        """
        return cls(load_settings(**{**settings, "eager": True, "memory": "memory"}), agents)

    def enqueue(
        self,
        agent: str | Agent,
        message: UserInput,
        *,
        conversation_id: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        stream: bool = False,
        on_busy: OnBusy | str | None = None,
        on_abort: OnAbort | str | None = None,
        deadline: float | None = None,
    ) -> TurnHandle:
        """Give an agent a message; returns when the turn is safe in Redis.

        Arguments are those of `TurnRequest`.

        Raises:
            InvalidInput: An argument is not acceptable (see `TurnRequest` and its subclasses
                `InvalidMessage`, `InvalidConversationId`, `UnknownAgent`).
            ConversationBusy: The conversation has too many turns that have not ended, or has any
                and `on_busy` is ``reject``.
            TenantMismatch: The conversation belongs to another tenant.
            StoreUnavailable: Redis is out of reach. The turn may have been accepted all the
                same: repeat the call with an `idempotency_key` and it is accepted once.
        """
        request = TurnRequest(
            agent=agent,
            message=message,
            conversation_id=conversation_id,
            user_id=user_id,
            tenant_id=tenant_id,
            idempotency_key=idempotency_key,
            metadata=metadata or {},
            stream=stream,
            on_busy=on_busy,
            on_abort=on_abort,
            deadline=deadline,
        )
        return self.enqueue_many([request])[0]

    def enqueue_many(self, requests: Sequence[TurnRequest]) -> list[TurnHandle]:
        """Give many messages at once: one pipeline to Redis, one connection to the broker.

        All requests are checked before the first is written. Turns of one conversation run in
        the order given. Raises as `enqueue`, for the first that was refused, when the others are
        accepted and on their way.
        """
        return self._accept(requests)

    def _accept(
        self, requests: Sequence[TurnRequest], *, internal: bool = False
    ) -> list[TurnHandle]:
        turns = [
            new_turn(request, self._agents, self.settings, internal=internal)
            for request in requests
        ]
        answers = self.store.enqueue(turns)
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]
        self._wakeups.send([answer.wakeup for answer in accepted if answer.wakeup is not None])
        for answer in answers:
            if not isinstance(answer, Accepted):
                raise answer
        return [
            TurnHandle(self, answer.turn_id, turn.conversation_id)
            for turn, answer in zip(turns, accepted, strict=True)
        ]

    def gather(
        self,
        turns: Sequence[Link],
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        deadline: float | None = None,
    ) -> GatherHandle:
        """Ask several agents side by side, each in a conversation of its own.

        What waits for them is a turn as well, which holds no worker meanwhile, survives every
        process, and cancels them when it is cancelled.

        Args:
            turns: Agents and their messages, as `Ask` or as pairs; at most `max_children`.
            user_id: For all of them, as the rest in `TurnRequest`.

        Raises:
            InvalidInput: There are none, too many, or one is not acceptable.
            StoreUnavailable: See `enqueue`.
        """
        asks = checked_asks(turns, self._agents, self.settings, chained=False)
        request = TurnRequest(
            agent=GATHER,
            message=flow_message(asks),
            user_id=user_id,
            tenant_id=tenant_id,
            idempotency_key=idempotency_key,
            metadata=metadata or {},
            deadline=deadline,
        )
        return GatherHandle(self, self._accept([request], internal=True)[0])

    def chain(
        self,
        turns: Sequence[Link],
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        deadline: float | None = None,
    ) -> TurnHandle:
        """Ask agents one after the other; each gets the reply of the one before.

        The result is the reply of the last. A link that fails ends the chain, which fails with
        ``chain_broken`` and says which.

        Args:
            turns: The first with its message; later ones by agent alone, or with a message in
                which ``{reply}`` stands for the reply before. At most 100.
            user_id: For all of them, as the rest in `TurnRequest`.

        Raises:
            InvalidInput: There are none, too many, or one is not acceptable.
            StoreUnavailable: See `enqueue`.
        """
        asks = checked_asks(turns, self._agents, self.settings, chained=True)
        request = TurnRequest(
            agent=CHAIN,
            message=flow_message(asks),
            user_id=user_id,
            tenant_id=tenant_id,
            idempotency_key=idempotency_key,
            metadata=metadata or {},
            deadline=deadline,
        )
        return self._accept([request], internal=True)[0]

    def turn(self, turn_id: str) -> TurnHandle:
        """The handle of a turn enqueued anywhere.

        Raises:
            InvalidInput: The text is no turn id.
            TurnNotFound: There is none.
            StoreUnavailable: Redis is out of reach.
        """
        return TurnHandle(self, turn_id, self.store.turn(turn_id).conversation_id)

    def cancel(self, turn_id: str) -> CancelOutcome:
        """Cancel a turn; see `TurnHandle.cancel`."""
        cancellation = self.store.cancel(turn_id)
        self._send(cancellation.wakeup)
        return cancellation.outcome

    def retry(self, turn_id: str) -> None:
        """Run a failed turn again; see `TurnHandle.retry`."""
        self._send(self.store.retry(turn_id, uuid.uuid4().hex))

    def decide(self, turn_id: str, call_id: str, decision: Decision) -> None:
        """Decide about a call of this very turn; see `TurnHandle.approve`."""
        check_decision(call_id, decision)
        self._send(self.store.calls.decide(turn_id, call_id, decision))

    def _send(self, wakeup: Wakeup | None) -> None:
        self._wakeups.send([wakeup] if wakeup is not None else [])

    def output_of(self, turn: Turn, output_type: type[Any] | None = None) -> Any:
        """The typed reply of an ended turn; see `TurnHandle.result`."""
        if not turn.structured or turn.text is None:
            return None
        if output_type is not None:
            return TypeAdapter(output_type).validate_json(turn.text)
        agent = self._agents.get(turn.answered_by or turn.agent)
        known = agent.output if agent is not None else None
        return from_json(turn.text) if known is None else known.load(turn.text)

    def history(self, conversation_id: str) -> list[dict[str, Any]]:
        """All messages of a conversation as plain dicts, oldest first; empty for a new one.

        Raises:
            InvalidConversationId: The id is not valid.
            StoreUnavailable: Redis is out of reach.
        """
        check_conversation_id(conversation_id)
        return [to_dict(message) for message in self.store.history(conversation_id)]

    def reset(self, conversation_id: str) -> int:
        """Begin a conversation's history anew; returns how many messages it had.

        A turn that runs meanwhile ends, but its messages stay out of the new history.

        Raises:
            InvalidConversationId: The id is not valid.
            StoreUnavailable: Redis is out of reach.
        """
        return self.store.reset(check_conversation_id(conversation_id))

    def close(self) -> None:
        """Close the connections and end the thread that follows events."""
        self.follower.close()
        self._wakeups.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
