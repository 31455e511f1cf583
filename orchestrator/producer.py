"""`Producer`: writes turns for the workers, and changes turns by their ids."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import redis
from pydantic import TypeAdapter
from pydantic_core import from_json
from typing_extensions import Unpack

from agentapi.conversation.messages import to_dict
from agentapi.errors import LoginRefused, StoreUnavailable, TurnNotFound
from agentapi.ids import check_conversation_id
from agentapi.settings import Settings, load_settings
from agentapi.stores import Accepted, CancelOutcome, RedisTurnStore, TurnStore, Wakeup
from agentapi.stores.enqueueing import enqueue_traced
from agentapi.tracing import set_up, traces
from agentapi.turns import Answers, Decision, NewTurn, PendingCall, Turn
from agentapi.turns.asks import flow_message
from agentapi.turns.kinds import CHAIN, GATHER
from orchestrator.arguments import check_arguments
from orchestrator.broker import CeleryWakeups, Wakeups
from orchestrator.eager import eager_backend
from orchestrator.events.follower import EventFollower
from orchestrator.flows import Link, check_flow_context, checked_asks
from orchestrator.fork import ForkRequest, copy_history, plan_fork
from orchestrator.timeline import Timeline
from orchestrator.timeline_reader import timeline_of
from orchestrator.turn_request import (
    FlowOptions,
    TurnRequest,
    check_decision,
    check_outputs,
    new_turn,
)

if TYPE_CHECKING:
    from agentapi import Agent
    from agentapi.agents.definition import AgentDefinition


TRACES_FLUSH: Final = 5.0
"""Maximum seconds that `close` waits for spans to be exported."""


class AcceptedTurn(NamedTuple):
    """The ids of a turn that is safely stored in Redis."""

    turn_id: str
    conversation_id: str


class Producer:
    """A producer of turns. Safe to share between threads; connects when first used.

    Attributes:
        settings: The producer's settings.
        store: The turn store it writes to.
        follower: Delivers turns' events to waiting readers.
    """

    def __init__(
        self, settings: Settings | None = None, agents: Iterable[Agent] | None = None
    ) -> None:
        """Create a producer.

        Args:
            settings: Read from the environment and `.env` when not given.
            agents: Agents known here, so that `enqueue` can refuse a wrong name. When not given,
                every name is accepted, and a worker that lacks the agent fails the turn.

        Raises:
            ConfigurationError: A setting is not valid.
            InvalidAgent: Two agents have the same name.
        """
        self.settings = settings or load_settings()
        set_up(
            self.settings.traces, content=self.settings.trace_content, service="agentapi-producer"
        )
        self._agents = _by_name(agents)
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
        """A producer for tests: turns run inside `enqueue`, in memory, without a server.

        Args:
            agents: Agents to run; those of `AGENTAPI_AGENTS` when not given.
            settings: Settings by field name; they override the environment.
        """
        return cls(load_settings(**{**settings, "eager": True, "memory": "memory"}), agents)

    def accept(
        self, requests: Sequence[TurnRequest], *, internal: bool = False
    ) -> list[AcceptedTurn]:
        """Write turns and wake workers for them; see `Orchestrator.enqueue_many`.

        Args:
            requests: The turns.
            internal: Whether the agents may be agentapi's own.
        """
        return self.accept_new(
            [
                new_turn(request, self._agents, self.settings, internal=internal)
                for request in requests
            ]
        )

    def accept_new(self, turns: Sequence[NewTurn]) -> list[AcceptedTurn]:
        """Write turns that `new_turn` has checked, and wake workers for them; see `accept`."""
        # From here on, accepted turns are safe in Redis, whatever happens to this process or the
        # broker (promise 3).
        try:
            answers = enqueue_traced(self.store, turns)
        except StoreUnavailable as error:
            raise _unsure(error) from error.__cause__
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]
        # Send before raising a refusal, because the accepted turns must run.
        self._wakeups.send([answer.wakeup for answer in accepted if answer.wakeup is not None])
        for answer in answers:
            if not isinstance(answer, Accepted):
                raise answer
        return [
            AcceptedTurn(answer.turn_id, turn.conversation_id)
            for turn, answer in zip(turns, accepted, strict=True)
        ]

    def accept_gather(self, turns: Sequence[Link], **options: Unpack[FlowOptions]) -> AcceptedTurn:
        """Write a turn that waits for several others; see `Orchestrator.gather`."""
        asks = checked_asks(turns, self._agents, self.settings, chained=False)
        check_flow_context(asks, self._agents, options.get("context"))
        request = TurnRequest(agent=GATHER, message=flow_message(asks), **options)
        return self.accept([request], internal=True)[0]

    def accept_chain(self, turns: Sequence[Link], **options: Unpack[FlowOptions]) -> AcceptedTurn:
        """Write a turn that asks agents one after the other; see `Orchestrator.chain`."""
        asks = checked_asks(turns, self._agents, self.settings, chained=True)
        check_flow_context(asks, self._agents, options.get("context"))
        request = TurnRequest(agent=CHAIN, message=flow_message(asks), **options)
        return self.accept([request], internal=True)[0]

    def cancel(self, turn_id: str) -> CancelOutcome:
        """Cancel a turn; see `TurnHandle.cancel`."""
        cancellation = self.store.cancel(turn_id)
        self._send(cancellation.wakeup)
        return cancellation.outcome

    def retry(self, turn_id: str) -> None:
        """Run a failed turn again; see `TurnHandle.retry`."""
        # The operation needs an id, because Redis's client repeats it when the answer is lost.
        self._send(self.store.retry(turn_id, uuid.uuid4().hex))

    def accept_fork(self, request: ForkRequest) -> AcceptedTurn:
        """Run a turn again from one of its steps; see `Orchestrator.fork`."""
        plan = plan_fork(self.store, self.settings, request)
        # Copy the history before enqueueing the turn, which must not run on half a history. If this
        # process dies in between, the unused copy expires.
        copy_history(self.store, self.settings, plan)
        return self.accept_new([plan.turn])[0]

    def timeline(self, turn_id: str) -> Timeline:
        """What happened to a turn, and when: waiting, attempts, steps, children, decisions.

        The timeline is stored as long as the turn.

        Raises:
            TurnNotFound: It ended longer than `turn_retention` ago.
            UnreadableRecord: A newer release has written it.
            StoreUnavailable: Redis is out of reach.
        """
        return timeline_of(self.store.past(turn_id))

    def pending(self, turn_id: str) -> list[PendingCall]:
        """Tool calls that wait, with those of turns that the turn waits for; see `PendingCall`.

        Raises:
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        found = self.store.calls.pending(turn_id)
        for child, awaited in self.store.calls.children(turn_id):
            if awaited:
                # A child that no longer exists has no pending calls.
                with contextlib.suppress(TurnNotFound):
                    found += self.pending(child.turn_id)
        return found

    def decide(self, turn_id: str, call_id: str, decision: Decision) -> None:
        """Decide about a tool call of a turn, or of one that it waits for.

        Raises:
            InvalidInput: The call's id, the reason or the name of who decided is not valid, or the
                arguments do not fit the tool's schema.
            CallNotPending: The call does not wait for a decision, or was decided otherwise.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        check_decision(call_id, decision)
        asked = next((call for call in self.pending(turn_id) if call.call_id == call_id), None)
        if asked is not None and asked.schema is not None and decision.arguments is not None:
            check_arguments(asked.tool, asked.schema, decision.arguments)
        # An unknown call is sent to this turn, whose answer says what is wrong.
        owner = turn_id if asked is None else asked.turn_id
        self._send(self.store.calls.decide(owner, call_id, decision))

    def answer(self, turn_id: str, answers: Answers) -> None:
        """Answer several calls of a turn atomically.

        Raises:
            InvalidInput: An output is not text, or is too long.
            CallNotPending: One of the calls does not wait for an output, or has another one.
            TurnNotFound: It ended longer than `turn_retention` ago.
            StoreUnavailable: Redis is out of reach.
        """
        check_outputs(answers.outputs, self.settings.max_tool_result_bytes)
        for call_id, decision in answers.decisions.items():
            check_decision(call_id, decision)
        self._send(self.store.calls.answer(turn_id, answers))

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
        """Delete a conversation's history; returns how many messages it had.

        A running turn continues, but its messages do not enter the new history.

        Raises:
            InvalidConversationId: The id is not valid.
            StoreUnavailable: Redis is out of reach.
        """
        return self.store.reset(check_conversation_id(conversation_id))

    def close(self) -> None:
        """Close the connections and end the thread that follows events.

        Spans of this process that have ended are exported.
        """
        # Close the store last: the follower reads from it, and eager wake-ups write to it.
        self.follower.close()
        self._wakeups.close()
        self.store.close()
        traces().flush(TRACES_FLUSH)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _by_name(agents: Iterable[Agent] | None) -> Mapping[str, AgentDefinition]:
    if agents is None:
        return {}
    # Imported here, because a producer without agents does not need these modules.
    from agentapi.agents.registry import by_name

    return by_name(agents)


def _unsure(error: StoreUnavailable) -> StoreUnavailable:
    """The error with advice, since the turn may have been accepted before the answer was lost."""
    lost = isinstance(error.__cause__, redis.ConnectionError | redis.TimeoutError)
    if isinstance(error, LoginRefused) or not lost:
        return error
    return StoreUnavailable(
        f"{error.without_ids()} The turn may have been accepted: repeating the call with the same "
        "idempotency_key is safe"
    )
