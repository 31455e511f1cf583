"""`AsyncOrchestrator`: the producer for asyncio.

Short calls run in a few threads. Waiting for turns takes no threads, for any number of turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from typing_extensions import Unpack

from agentapi.conversation.user_input import UserInput
from agentapi.errors import StoreFault, TurnFailed
from agentapi.settings import Settings
from agentapi.stores import CancelOutcome, ConversationSummary, TurnEnd, TurnSummary
from agentapi.turns import (
    Event,
    EventType,
    PendingCall,
    Turn,
    TurnResult,
    TurnStatus,
)
from agentapi.turns.model import OutputT
from orchestrator.blocking import BlockingCalls
from orchestrator.bulk import BulkResult
from orchestrator.client import Orchestrator
from orchestrator.data.forgetting import ForgottenUser
from orchestrator.data.importing import ImportResult
from orchestrator.ends import EndFilters, EndsBell, follow_async, position_of, wanted_end
from orchestrator.events.async_follower import AsyncFollower, Closed
from orchestrator.flows import Link, replies_of
from orchestrator.handle import LOOK_AGAIN, TurnHandle
from orchestrator.listing import (
    AsyncListing,
    ConversationFilters,
    Listing,
    TurnFilters,
    WhoseTurns,
)
from orchestrator.results import last_events, past_events, result_of, still_running
from orchestrator.timeline import Timeline
from orchestrator.turn_request import FlowOptions, ForkOptions, TurnOptions, TurnRequest

if TYPE_CHECKING:
    from agentapi import Agent

_THREADS = 16

_LINES = 64
"""Maximum lines of an export that one call reads."""

T = TypeVar("T")


class AsyncOrchestrator:
    """A producer of turns for asyncio; see `Orchestrator` for what its methods do and raise."""

    def __init__(
        self, settings: Settings | None = None, agents: Iterable[Agent] | None = None
    ) -> None:
        """Create a producer; see `Orchestrator`."""
        self._use(Orchestrator(settings, agents))

    @classmethod
    def eager(cls, agents: Iterable[Agent] | None = None, **settings: Any) -> Self:
        """A producer for tests; see `Orchestrator.eager`."""
        made = cls.__new__(cls)
        made._use(Orchestrator.eager(agents, **settings))
        return made

    def _use(self, sync: Orchestrator) -> None:
        self.sync = sync
        self.call = BlockingCalls(_THREADS, "agentapi-producer")
        # It shares the follower of `sync`: one thread and one connection serve both.
        self.follower = AsyncFollower(sync.follower, sync.store, self.call)
        self._bell = EndsBell(sync.store.lists)

    async def enqueue(
        self, agent: str | Agent, message: UserInput, **options: Unpack[TurnOptions]
    ) -> AsyncTurnHandle:
        """Send a message to an agent; see `Orchestrator.enqueue`."""
        request = TurnRequest(agent=agent, message=message, **options)
        return (await self.enqueue_many([request]))[0]

    async def enqueue_many(self, requests: Sequence[TurnRequest]) -> list[AsyncTurnHandle]:
        """Enqueue many turns; see `Orchestrator.enqueue_many`."""
        handles = await self.call(lambda: self.sync.enqueue_many(requests))
        return [AsyncTurnHandle(self, handle) for handle in handles]

    async def gather(
        self, turns: Sequence[Link], **options: Unpack[FlowOptions]
    ) -> AsyncGatherHandle:
        """Ask several agents in parallel; see `Orchestrator.gather`."""
        handle = await self.call(lambda: self.sync.gather(turns, **options))
        return AsyncGatherHandle(self, handle)

    async def chain(self, turns: Sequence[Link], **options: Unpack[FlowOptions]) -> AsyncTurnHandle:
        """Ask agents one after the other; see `Orchestrator.chain`."""
        handle = await self.call(lambda: self.sync.chain(turns, **options))
        return AsyncTurnHandle(self, handle)

    async def turn(self, turn_id: str) -> AsyncTurnHandle:
        """The handle of a turn that any process enqueued; see `Orchestrator.turn`."""
        return AsyncTurnHandle(self, await self.call(lambda: self.sync.turn(turn_id)))

    async def cancel(self, turn_id: str) -> CancelOutcome:
        """Cancel a turn; see `TurnHandle.cancel`."""
        return await self.call(lambda: self.sync.cancel(turn_id))

    async def retry(self, turn_id: str) -> None:
        """Run a failed turn again; see `TurnHandle.retry`."""
        await self.call(lambda: self.sync.retry(turn_id))

    async def fork(self, turn_id: str, **options: Unpack[ForkOptions]) -> AsyncTurnHandle:
        """Run a turn again from one of its steps, in a copy; see `Orchestrator.fork`."""
        return AsyncTurnHandle(self, await self.call(lambda: self.sync.fork(turn_id, **options)))

    async def timeline(self, turn_id: str) -> Timeline:
        """What happened to a turn, and when; see `Orchestrator.timeline`."""
        return await self.call(lambda: self.sync.timeline(turn_id))

    def turns(self, **filters: Unpack[TurnFilters]) -> AsyncListing[TurnSummary]:
        """Turns, newest first; see `Orchestrator.turns`."""
        return self._listing(self.sync.turns(**filters))

    def conversations(
        self, **filters: Unpack[ConversationFilters]
    ) -> AsyncListing[ConversationSummary]:
        """Conversations, newest first; see `Orchestrator.conversations`."""
        return self._listing(self.sync.conversations(**filters))

    def approvals(self, **filters: Unpack[WhoseTurns]) -> AsyncListing[PendingCall]:
        """Tool calls that wait for a decision; see `Orchestrator.approvals`."""
        return self._listing(self.sync.approvals(**filters))

    def _listing(self, listing: Listing[T]) -> AsyncListing[T]:
        return AsyncListing(
            lambda limit, cursor, some: self.call(
                partial(listing.page, limit, cursor, partial=some)
            )
        )

    async def retry_all(
        self, *, dry_run: bool = False, limit: int | None = None, **filters: Unpack[TurnFilters]
    ) -> BulkResult:
        """Retry the failed turns that match; see `Orchestrator.retry_all`."""
        return await self.call(lambda: self.sync.retry_all(dry_run=dry_run, limit=limit, **filters))

    async def cancel_all(
        self, *, dry_run: bool = False, limit: int | None = None, **filters: Unpack[TurnFilters]
    ) -> BulkResult:
        """Cancel the turns that match and have not ended; see `Orchestrator.cancel_all`."""
        return await self.call(
            lambda: self.sync.cancel_all(dry_run=dry_run, limit=limit, **filters)
        )

    async def ends(
        self, after: str | float | datetime | None = None, **filters: Unpack[EndFilters]
    ) -> AsyncIterator[TurnEnd]:
        """Ends of turns as they happen; see `Orchestrator.ends`.

        Use ``asyncio.timeout`` to limit the wait.
        """
        wanted, start = wanted_end(filters), position_of(after)
        store = self.sync.store.lists
        if start is None:
            start = (await self.call(partial(store.ends, None, 1))).position
        following = follow_async(store, self._bell, self.call, start, wanted)
        async with aclosing(following):
            async for end in following:
                yield end

    async def export_conversations(
        self,
        conversation_id: str | None = None,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
    ) -> AsyncIterator[bytes]:
        """Export conversations; see `Orchestrator.export_conversations`."""
        export = partial(self.sync.export_conversations, tenant_id=tenant_id, user_id=user_id)
        lines = export(conversation_id)
        while some := await self.call(lambda: list(islice(lines, _LINES))):
            for line in some:
                yield line

    async def import_conversations(
        self, lines: Iterable[bytes | str], *, replace: bool = False, dry_run: bool = False
    ) -> ImportResult:
        """Import conversations; see `Orchestrator.import_conversations`.

        The lines are read in a thread.
        """
        options = {"replace": replace, "dry_run": dry_run}
        return await self.call(lambda: self.sync.import_conversations(lines, **options))

    async def forget_user(
        self,
        user_id: str,
        *,
        tenant_id: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> ForgottenUser:
        """Delete a user's data; see `Orchestrator.forget_user`."""
        return await self.call(
            lambda: self.sync.forget_user(
                user_id, tenant_id=tenant_id, dry_run=dry_run, timeout=timeout
            )
        )

    async def history(self, conversation_id: str) -> list[dict[str, Any]]:
        """All messages of a conversation; see `Orchestrator.history`."""
        return await self.call(lambda: self.sync.history(conversation_id))

    async def reset(self, conversation_id: str) -> int:
        """Delete a conversation's history; see `Orchestrator.reset`."""
        return await self.call(lambda: self.sync.reset(conversation_id))

    async def aclose(self) -> None:
        """Close the connections."""
        # Runs in a thread, because closing waits for the follower's thread to end.
        await self.call(self.sync.close)
        self.call.close()
        self._bell.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncTurnHandle:
    """A turn, by its id; see `TurnHandle`."""

    def __init__(self, orchestrator: AsyncOrchestrator, handle: TurnHandle) -> None:
        self._orchestrator = orchestrator
        self._handle = handle
        self.turn_id = handle.turn_id
        self.conversation_id = handle.conversation_id

    def __repr__(self) -> str:
        return f"Async{self._handle!r}"

    async def info(self) -> Turn:
        """The turn as it is now; see `TurnHandle.info`."""
        return await self._orchestrator.call(self._handle.info)

    async def status(self) -> TurnStatus:
        """The turn's status."""
        return (await self.info()).status

    async def fork(self, **options: Unpack[ForkOptions]) -> AsyncTurnHandle:
        """Run the turn again from one of its steps, in a copy; see `Orchestrator.fork`."""
        return await self._orchestrator.fork(self.turn_id, **options)

    async def timeline(self) -> Timeline:
        """What happened to the turn, and when; see `Orchestrator.timeline`."""
        return await self._orchestrator.timeline(self.turn_id)

    async def cancel(self) -> CancelOutcome:
        """Cancel the turn; see `TurnHandle.cancel`."""
        return await self._orchestrator.cancel(self.turn_id)

    async def retry(self) -> None:
        """Run the failed turn again; see `TurnHandle.retry`."""
        await self._orchestrator.retry(self.turn_id)

    async def pending(self) -> list[PendingCall]:
        """Calls that wait for an answer; see `TurnHandle.pending`."""
        return await self._orchestrator.call(self._handle.pending)

    async def approve(
        self, call_id: str, *, by: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Allow a tool call; see `TurnHandle.approve`."""
        await self._orchestrator.call(
            lambda: self._handle.approve(call_id, by=by, arguments=arguments)
        )

    async def reject(
        self, call_id: str, reason: str | None = None, *, by: str | None = None
    ) -> None:
        """Refuse a tool call; see `TurnHandle.reject`."""
        await self._orchestrator.call(lambda: self._handle.reject(call_id, reason, by=by))

    async def answer(self, call_id: str, output: str, *, is_error: bool = False) -> None:
        """Give the output of a client tool's call; see `TurnHandle.answer`."""
        await self._orchestrator.call(
            lambda: self._handle.answer(call_id, output, is_error=is_error)
        )

    async def children(self) -> list[AsyncTurnHandle]:
        """The turns that this one delegated to; see `TurnHandle.children`."""
        found = await self._orchestrator.call(self._handle.children)
        return [AsyncTurnHandle(self._orchestrator, handle) for handle in found]

    @overload
    async def result(self, timeout: float | None = None) -> TurnResult: ...  # noqa: ASYNC109

    @overload
    async def result(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        output_type: type[OutputT],
    ) -> TurnResult[OutputT]: ...

    async def result(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        output_type: type[Any] | None = None,
    ) -> TurnResult[Any]:
        """Wait until the turn has ended; see `TurnHandle.result`."""
        turn = await self.info()
        try:
            async with asyncio.timeout(timeout):
                # Loops if the message joins another turn in the meantime, because that turn answers
                # it.
                while not turn.status.ended:
                    # Start at the turn's newest recorded event: the event that ends it has a higher
                    # number.
                    async for _ in self._follow(turn.turn_id, turn.last_event):
                        pass
                    turn = await self.info()
        except TimeoutError:
            raise still_running(self.turn_id) from None
        return result_of(turn, self._orchestrator.sync.output_of(turn, output_type))

    async def events(self, after: int = -1) -> AsyncIterator[Event]:
        """The turn's past and future events; see `TurnHandle.events`.

        Use ``asyncio.timeout`` to limit the wait.
        """
        store = self._orchestrator.sync.store
        past, more = await self._orchestrator.call(lambda: past_events(store, self.turn_id, after))
        for event in past:
            yield event
        if more:
            async for event in self._follow(self.turn_id, past[-1].number if past else after):
                yield event

    async def _follow(self, turn_id: str, after: int) -> AsyncIterator[Event]:
        following = self._orchestrator.follower.follow(
            turn_id, after, max_wait=LOOK_AGAIN, fresh=True
        )
        async with aclosing(following):
            async for found in following:
                if isinstance(found, Closed):
                    raise StoreFault(
                        f"the events of turn {self.turn_id} cannot be read; see the log"
                    )
                for event in found:
                    after = event.number
                    yield event
                    # A newer release may use another kind of end event, so the turn's status
                    # decides.
                    if event.type is EventType.UNKNOWN and (await self.status()).ended:
                        return
                if found:
                    continue
                # No events for a while. They may have been lost in a failover, so read the turn.
                last = await self._orchestrator.call(
                    partial(last_events, self._orchestrator.sync.store, turn_id, after)
                )
                if last is not None:
                    for event in last:
                        yield event
                    return


class AsyncGatherHandle(AsyncTurnHandle):
    """A turn that waits for several others; see `GatherHandle`."""

    async def replies(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        return_exceptions: bool = False,
    ) -> Sequence[str | TurnFailed]:
        """Wait for all of them; see `GatherHandle.replies`."""
        result = await self.result(timeout)
        return replies_of(self.turn_id, result, return_exceptions=return_exceptions)
