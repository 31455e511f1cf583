"""Hooks that run after turns have ended: `Hooks.on_turn_committed`.

The script that ends a turn records the end if workers have such a hook for its agent. Any process
may run that script. Any worker that has the hook takes the end and calls the hook. If that worker
dies meanwhile, another one takes the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from agentapi.agents.definition import AgentDefinition
from agentapi.errors import StoreUnavailable
from agentapi.logs import line
from agentapi.settings import Settings
from agentapi.stores import HookStore, Telling, UntoldEnd
from agentapi.supervision import Service, Supervisor
from workers.outage import Outage

AT_ONCE: Final = 16
"""Maximum ends for which one worker calls hooks at the same time."""

PATIENCE: Final = 60.0
"""Time limit for an agent's hooks for one end, in seconds."""

STOPS_WITHIN: Final = 5.0
"""Seconds that hooks have to finish when their worker stops."""

REMEMBERED_AGAIN: Final = 60.0
"""Seconds between two announcements of a worker's hooks, in case Redis loses them."""

log = logging.getLogger("agentapi.hooks")


class _Called(NamedTuple):
    """Hooks that were called for an end, and the type of the error if one failed."""

    end: UntoldEnd
    error: str | None


class CommittedHooks:
    """Calls the hooks of a worker's agents. Does nothing if none has such a hook."""

    def __init__(
        self,
        settings: Settings,
        agents: Mapping[str, AgentDefinition],
        store: HookStore,
        loop: asyncio.AbstractEventLoop,
        outage: Outage,
        *,
        supervisor: Supervisor,
    ) -> None:
        """Create them; nothing starts yet.

        Args:
            settings: How often to look for ends, and how long a turn is kept.
            agents: The agents that the worker serves.
            store: Holds the ends.
            loop: Where hooks run.
            outage: Records whether Redis is unreachable.
            supervisor: Watches the thread.
        """
        self._settings = settings
        self._agents = {name: agent for name, agent in agents.items() if agent.hooks.follow_ends}
        self._store = store
        self._loop = loop
        self._outage = outage
        self._wake = threading.Event()
        self._called: SimpleQueue[_Called] = SimpleQueue()
        self._catching_up = threading.Lock()
        self._running: dict[str, UntoldEnd] = {}
        self._remembered = 0.0
        self._looks = False
        self._service = supervisor.thread("agentapi-hooks", self._run) if self._agents else None

    def start(self, *, looks: bool) -> None:
        """Announce the hooks, and start looking for ends.

        Args:
            looks: Whether to look for ends in a thread; eager mode calls `catch_up` instead.
        """
        if self._service is None:
            return
        try:
            # Before the worker's first turn, which might end before the thread gets to it.
            self._remember()
        except StoreUnavailable as error:
            self._outage.begins(error)
        if looks:
            self._looks = True
            self._service.start()

    def stop(self) -> None:
        """Stop looking, and give running hooks a moment to finish.

        Another worker repeats the call of a hook that has not finished by then.
        """
        if self._service is None or not self._looks:
            return
        deadline = time.monotonic() + STOPS_WITHIN
        if self._service.stop(wake=self._wake.set):
            with contextlib.suppress(Empty):
                while self._running:
                    left = max(0.0, deadline - time.monotonic())
                    self._settle(self._called.get(timeout=left))

    def look(self) -> None:
        """From any thread: a turn has just ended."""
        if self._looks:
            self._wake.set()

    def catch_up(self) -> None:
        """Call the hooks of all ends, and wait for them: eager mode has no thread for it."""
        # A hook may enqueue a turn itself: the outermost call goes on until no end is left.
        if not self._agents or not self._catching_up.acquire(blocking=False):
            return
        try:
            self._remember()
            while self._take() or self._running:
                self._settle(self._called.get())
        finally:
            self._catching_up.release()

    def _run(self, service: Service) -> None:
        while not service.stopping:
            try:
                self._remember()
                self._settle_all()
                if self._running:
                    # Renewed like a turn's lease: another worker takes over the ends of a dead one.
                    self._store.hold(list(self._running.values()), self._settings.lease_ttl)
                self._take()
            except StoreUnavailable as error:
                self._outage.begins(error)
            service.progress()
            self._wake.wait(self._settings.sweep_interval)
            self._wake.clear()

    def _remember(self) -> None:
        now = time.monotonic()
        if not self._remembered or now - self._remembered > REMEMBERED_AGAIN:
            self._store.expect(self._agents, self._settings.turn_retention)
            self._remembered = now

    def _take(self) -> int:
        """Take as many ends as may be handled at the same time; returns how many."""
        free = AT_ONCE - len(self._running)
        if free <= 0:
            return 0
        taken = 0
        for partition in self._store.untold():
            if taken >= free:
                break
            ends = self._store.tell(
                partition,
                self._agents,
                call=uuid.uuid4().hex,
                seconds=self._settings.lease_ttl,
                most=free - taken,
            )
            for end in ends:
                self._tell(end)
            taken += len(ends)
        return taken

    def _tell(self, end: UntoldEnd) -> None:
        def done(called: Future[str | None]) -> None:
            # Foreign code that cancels all tasks may end the call before its first line.
            error = "Cancelled" if called.cancelled() else called.result()
            self._called.put(_Called(end, error))
            self._wake.set()

        self._running[end.entry] = end
        work = self._call(end)
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop).add_done_callback(done)
        except BaseException:
            # For example, the loop has ended. The end is no longer held and is due again soon.
            work.close()
            del self._running[end.entry]
            raise

    async def _call(self, end: UntoldEnd) -> str | None:
        """On the event loop: call the hooks of an end; returns an error's type. Raises nothing."""
        if end.turn is None:
            return "UnreadableRecord"
        try:
            async with asyncio.timeout(PATIENCE):
                await self._agents[end.agent].hooks.on_turn_committed(end.turn, end.end_id)
        except BaseException as raised:
            # A hook is users' code and may raise anything. Only the type: its text may quote users.
            return type(raised.__cause__ or raised).__name__
        return None

    def _settle_all(self) -> None:
        while True:
            try:
                called = self._called.get_nowait()
            except Empty:
                return
            self._settle(called)

    def _settle(self, called: _Called) -> None:
        """Record the result of an end."""
        end, error = called
        self._running.pop(end.entry, None)
        try:
            telling = self._store.told(end, failed=error is not None, call=uuid.uuid4().hex)
        except StoreUnavailable as away:
            # The end is taken again when its claim has not been renewed for a while.
            self._outage.begins(away)
            return
        if error is None:
            return
        given_up = telling is Telling.GIVEN_UP
        write = log.error if given_up else log.warning
        name = "hook.given_up" if given_up else "hook.failed"
        write(
            line(name, hook="on_turn_committed", turn_id=end.turn_id, agent=end.agent, error=error)
        )
