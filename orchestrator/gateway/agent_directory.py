"""The directory of agents. Each agent is a model of OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentapi import Settings
from agentapi.agents.accepted import AcceptedRequests, accepted_by
from agentapi.agents.definition import AgentDefinition
from agentapi.agents.names import is_internal, unknown_agent
from agentapi.agents.registry import load_agents
from agentapi.errors import AgentAPIError, BrokerUnavailable
from orchestrator.broker import ask_workers, producer_app
from orchestrator.gateway.http.errors import UnsupportedParameter

MAX_AGE: Final = 10.0
"""Seconds for which a census counts as current."""

_MAX_AGE_WITHOUT_WORKERS: Final = 1.0

_REPLY_TIMEOUT: Final = 1.0

_QUESTIONS: Final = 3
"""Attempts before the workers count as absent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Census:
    """A census: which workers answered.

    Attributes:
        workers: The names of the agents of each worker.
        accepted: What requests may decide about each agent, from the last answers; None if a worker
            of an older release serves it, which does not report this.
        fault: Why the workers could not be asked, or None.
        taken: Time of the census, by the event loop's clock.
    """

    workers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    accepted: Mapping[str, AcceptedRequests | None] = field(default_factory=dict)
    fault: BrokerUnavailable | None = None
    taken: float = float("-inf")


class WorkerCensus:
    """Asks the workers which agents they serve, once for all waiting requests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Any = producer_app(settings)
        # A dedicated thread: a broadcast waits a second and must not occupy the producer's threads.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agentapi-census")
        self._asking = asyncio.Lock()
        self._last = Census()
        self._refresh: asyncio.Task[Census] | None = None

    def refresh(self) -> None:
        """Take a new census in the background if the last one is old."""
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self.take())

    @property
    def known(self) -> tuple[str, ...]:
        """The agents of the workers that answered last, sorted."""
        return tuple(sorted({name for names in self._last.workers.values() for name in names}))

    async def last(self) -> Census:
        """The last census, which may be old; waits only if no worker is known."""
        if not self._last.workers:
            return await self.take()
        self.refresh()
        # Requests do not wait for the broker while an old census suffices.
        return self._last

    async def take(self, max_age: float = MAX_AGE) -> Census:
        """A census that is at most `max_age` seconds old."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        if self._is_old(asked, max_age):
            async with self._asking:
                # Another request may have taken it while this one waited for the lock.
                if self._is_old(asked, max_age):
                    census = await loop.run_in_executor(self._thread, self._ask)
                    # Workers under load may miss a question, so their agents' policies are
                    # remembered.
                    accepted = {**self._last.accepted, **census.accepted}
                    self._last = replace(census, taken=loop.time(), accepted=accepted)
        return self._last

    def _is_old(self, now: float, max_age: float) -> bool:
        # Workers that have just started must be found soon.
        if not self._last.workers:
            max_age = min(max_age, _MAX_AGE_WITHOUT_WORKERS)
        return self._last.taken < now - max_age

    def _ask(self) -> Census:
        try:
            replies = ask_workers(
                self._app, self._settings, "agents", timeout=_REPLY_TIMEOUT, tries=_QUESTIONS
            )
        except BrokerUnavailable as error:
            return Census(fault=error)
        answers = [said for reply in replies for said in reply.items()]
        return Census(
            workers={name: _agents(said) for name, said in answers},
            accepted=_accepted(said for _, said in answers),
        )

    async def aclose(self) -> None:
        """Close the connection."""
        if self._refresh is not None:
            await asyncio.gather(self._refresh, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._app.close)
        self._thread.shutdown(wait=False)


def _agents(reply: object) -> tuple[str, ...]:
    """The agents in a worker's reply, which may be an error, or another release's."""
    found = reply.get("agents") if isinstance(reply, dict) else None
    return tuple(name for name in found if isinstance(name, str)) if found else ()


def _accepted(replies: Iterable[object]) -> dict[str, AcceptedRequests | None]:
    """What requests may decide about each agent, by all workers that serve it."""
    found: dict[str, AcceptedRequests | None] = {}
    for reply in replies:
        said = reply.get("requests") if isinstance(reply, dict) else None
        for name in _agents(reply):
            one = AcceptedRequests.from_dict(said.get(name) if isinstance(said, dict) else None)
            other = found.get(name, one)
            found[name] = one.both(other) if one is not None and other is not None else None
    return found


class AgentDirectory:
    """The names of the agents: from `AGENTAPI_AGENTS` if it is set, else from the workers.

    Attributes:
        definitions: The agents of `AGENTAPI_AGENTS` by name; empty if it is not set.
    """

    def __init__(self, settings: Settings, census: WorkerCensus) -> None:
        """Import the modules of `AGENTAPI_AGENTS`, if it is set.

        Raises:
            AgentAPIError: A module cannot be used.
        """
        self._census = census
        self._default = settings.request_policy
        self.definitions: Mapping[str, AgentDefinition] = (
            load_agents(settings.agents) if settings.agents else {}
        )
        self._fixed = tuple(sorted(self.definitions)) if settings.agents else None

    @property
    def known(self) -> tuple[str, ...]:
        """The names that are known without asking the workers, sorted; some may be missing."""
        if self._fixed is not None:
            return self._fixed
        self._census.refresh()
        return self._census.known

    async def names(self, max_age: float | None = None) -> tuple[str, ...]:
        """All names, sorted.

        Args:
            max_age: Seconds; how old the workers' answer may be. Any age if not given.

        Raises:
            BrokerUnavailable: The workers must be asked, and the broker is out of reach.
        """
        if self._fixed is not None:
            return self._fixed
        census = await (self._census.last() if max_age is None else self._census.take(max_age))
        if census.fault is not None:
            raise census.fault
        return tuple(sorted({name for names in census.workers.values() for name in names}))

    async def accepted(self, name: str) -> AcceptedRequests | None:
        """What requests may decide about an agent; None while this is unknown.

        Raises:
            UnsupportedParameter: A worker of an older release serves it, and would decide nothing.
        """
        if (agent := self.definitions.get(name)) is not None:
            return accepted_by(agent, self._default)
        census = await self._census.last()
        if name not in census.accepted:
            return None
        accepted = census.accepted[name]
        if accepted is None:
            raise UnsupportedParameter(
                f"a worker of an older release serves agent {name!r}, and it accepts neither "
                "instructions nor other decisions from requests: upgrade every worker"
            )
        return accepted

    async def check(self, name: str) -> None:
        """Check that an agent exists.

        While no worker answers, every name is accepted: the turn waits for a worker, which decides.

        Raises:
            UnknownAgent: It does not exist, or only the runtime itself uses it.
        """
        if is_internal(name):
            raise unknown_agent(name, ())
        try:
            known = await self.names()
            if known and name not in known:
                # A worker that serves it may have started since the last census.
                known = await self.names(max_age=1.0)
        except AgentAPIError:
            # It is unknown whether the agent exists: the turn is accepted, and a worker decides.
            return
        if known and name not in known:
            raise unknown_agent(name, known)
