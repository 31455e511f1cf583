"""Accepts turns. All checks are made before anything is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import orjson
from pydantic import BaseModel

from agentapi.conversation.messages import Message, dumps
from agentapi.conversation.user_input import File, Image
from agentapi.errors import AgentAPIError, ServerUnavailable
from agentapi.turns import ClientTools, NewTurn, OnAbort, OnBusy, RequestOptions
from orchestrator.gateway.http.errors import KeyReused
from orchestrator.gateway.openai.attachments import check_addresses
from orchestrator.gateway.tenants.ledger import OVERHEAD, Admission
from orchestrator.gateway.turn_labels import Labels, labelled, labels_of
from orchestrator.gateway.view import TenantView
from orchestrator.turn_request import TurnRequest, new_turn


class Destination(Protocol):
    """The conversation in which a turn will run. It may have to be created first."""

    @property
    def conversation_id(self) -> str:
        """The conversation's public id."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes that creating it adds to Redis."""
        ...

    async def make(self, view: TenantView) -> Self:
        """Create the conversation.

        Returns:
            Itself; or, if it can no longer be used, another destination that is not created yet.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Existing:
    """A conversation that exists, or that its first turn creates."""

    conversation_id: str
    bytes: int = 0

    async def make(self, view: TenantView) -> Existing:
        """Do nothing."""
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Unnamed:
    """A new conversation without a name.

    Attributes:
        before: Its first messages.
        operation: Identifies the request; a repeat with the same value adds nothing.
        idle_time: Seconds of idleness after which it expires.
    """

    conversation_id: str
    before: Sequence[Message]
    operation: str
    user_id: str | None
    idle_time: float

    @property
    def bytes(self) -> int:
        """Bytes that its first messages add to Redis."""
        return OVERHEAD + sum(len(dumps(message)) for message in self.before)

    async def make(self, view: TenantView) -> Unnamed:
        """Create the conversation with its first messages. Without any, the turn itself creates it.

        Therefore the turn must have the same user and idle time.
        """
        if not self.before:
            return self
        await view.open(
            self.conversation_id,
            make=True,
            user=self.user_id,
            idle=self.idle_time,
            operation=self.operation,
            messages=self.before,
        )
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class NewMessage:
    """A message that will become a turn.

    Attributes:
        idempotency_key: The caller's name for this turn in its conversation, or a random one.
        digest: Digest of the request if the caller named it; see `digest_of`.
        on_busy: See `TurnRequest`; None for the setting.
        on_abort: See `TurnRequest`; None for the setting.
        deadline: See `TurnRequest`.
        options: The request's options; None if it has none.
        idle_time: See `TurnRequest`.
        client_tools: See `TurnRequest`.
        prior: See `TurnRequest`.
        context: See `TurnRequest`.
    """

    agent: str
    text: str
    idempotency_key: str
    attached: Sequence[Image | File] = ()
    user_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    digest: str | None = None
    stream: bool = False
    on_busy: OnBusy | None = OnBusy.ENQUEUE
    on_abort: OnAbort | None = OnAbort.DROP
    deadline: float | None = None
    options: RequestOptions | None = None
    idle_time: float | None = None
    client_tools: ClientTools | None = None
    prior: Sequence[Message] = ()
    context: Mapping[str, Any] | None = None


def digest_of(body: BaseModel, key: str | None) -> str | None:
    """A digest that distinguishes requests with the same key; None without a key."""
    if key is None:
        return None
    given = body.model_dump(mode="json")
    # Leave out defaults: a repeat may reach a gateway of an older release, without these fields.
    for added in ("deadline", "context"):
        if given.get(added, 0) is None:
            del given[added]
    data = orjson.dumps(given, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()[:32]


async def accept(view: TenantView, message: NewMessage, destination: Destination) -> str:
    """Accept a turn; returns its id.

    Raises:
        UnknownAgent: The agent does not exist.
        InvalidInput: An argument is not valid.
        InvalidRequest: An image or file has an address that is not allowed.
        RateLimited: The tenant has too many turns in flight, or too many bytes.
        KeyReused: The key was used for another request.
        ConversationBusy: The conversation's inbox is full.
        StoreUnavailable: Redis is out of reach; a repeat with the same key is safe.
    """
    # Cheap checks come first: nothing is counted or stored for a refused request.
    await view.gateway.agents.check(message.agent)
    check_addresses(message.attached, view.gateway.settings.gateway_addresses, "input")
    while True:
        request = _request(view, message, destination.conversation_id)
        turn = new_turn(request, view.gateway.agents.definitions, view.gateway.settings)
        admission = _admission(turn, destination)
        # Count before writing: otherwise two gateways could both take the last free place.
        new = await view.gateway.ledger.admit(view.tenant, admission)
        try:
            made = await destination.make(view)
            if made is destination:
                turn_id = await _enqueue(view, turn)
                # Check the stored turn afterwards, because an earlier check could race with another
                # gateway.
                await _refuse_reused_key(view, message, turn, turn_id)
        except AgentAPIError as refusal:
            # If Redis did not answer, the turn may have been accepted, so it stays counted.
            if new and not isinstance(refusal, ServerUnavailable):
                await view.gateway.ledger.withdraw(view.tenant, admission)
            raise
        if made is destination:
            if new and turn_id != turn.turn_id:
                # It was merged into a turn that is already counted.
                await view.gateway.ledger.withdraw(view.tenant, admission, stored=False)
            return turn_id
        # Another request has continued that turn in the meantime: count and execute the new plan
        # instead.
        await view.gateway.ledger.withdraw(view.tenant, admission)
        destination = made


async def _enqueue(view: TenantView, turn: NewTurn) -> str:
    accepted = await view.gateway.call(lambda orchestrator: orchestrator.accept_new([turn]))
    return accepted[0].turn_id


async def _refuse_reused_key(
    view: TenantView, message: NewMessage, turn: NewTurn, turn_id: str
) -> None:
    """Check that the turn with the caller's key came from this request."""
    if message.digest is None or turn_id != turn.turn_id:
        return
    known = labels_of(await view.turn(turn_id)).digest
    if known is not None and known != message.digest:
        raise KeyReused(
            "the Idempotency-Key was already used for a different request: a repeat must be the "
            "same request, and a different request needs a new key",
            param="Idempotency-Key",
            retry=False,
        )


def _request(view: TenantView, message: NewMessage, conversation_id: str) -> TurnRequest:
    labels = message.labels
    # Messages are merged only if their metadata are equal, which digests would prevent.
    merges = (message.on_busy or view.gateway.settings.on_busy) is OnBusy.MERGE
    if message.digest is not None and not merges:
        labels = replace(labels, digest=message.digest)
    return TurnRequest(
        agent=message.agent,
        message=[message.text, *message.attached] if message.attached else message.text,
        conversation_id=view.internal(conversation_id),
        user_id=message.user_id,
        tenant_id=view.tenant,
        idempotency_key=message.idempotency_key,
        metadata=labelled(message.metadata, labels),
        stream=message.stream,
        on_busy=message.on_busy,
        on_abort=message.on_abort,
        deadline=message.deadline,
        options=message.options,
        idle_time=message.idle_time,
        client_tools=message.client_tools,
        prior=message.prior,
        context=message.context,
    )


def _admission(turn: NewTurn, destination: Destination) -> Admission:
    size = len(turn.input.encode())
    decided = len(turn.options.to_json()) if turn.options is not None else 0
    decided += len(turn.client_tools.to_json()) if turn.client_tools is not None else 0
    decided += sum(len(dumps(message)) for message in turn.prior)
    if turn.context is not None:
        size += len(orjson.dumps(dict(turn.context)))
    return Admission(
        turn_id=turn.turn_id,
        conversation_id=turn.conversation_id,
        bytes=destination.bytes + size + sum(map(len, turn.blobs.values())),
        turn_bytes=size + decided + OVERHEAD,
    )
