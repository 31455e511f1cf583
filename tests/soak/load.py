"""The load of a soak: actions at a given rate, in threads, each counted by how it ended."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2

from agentapi import Settings
from agentapi.errors import AgentAPIError, StoreUnavailable
from orchestrator import Orchestrator
from tests.soak.actions import ACTIONS, Visit

AWAY = (StoreUnavailable, httpx2.TransportError)
"""What a client may get while Redis or the gateway is being restarted."""

AT_ONCE = 32


class MixedLoad:
    """Visits, so many a second, until the end of the ``with``.

    Attributes:
        done: How many visits of each action went well.
        refused: How many met a server that was away.
        problems: The first of those that ended as they should not have.
        wrong: How many those were.
    """

    def __init__(
        self, settings: Settings, gateway_url: str, keys: list[str], *, rate: float, seed: int
    ) -> None:
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.problems: list[str] = []
        self._rate = rate
        self._chance = random.Random(seed)
        self._orchestrator = Orchestrator(settings)
        self._http = tuple(
            httpx2.Client(
                base_url=gateway_url, headers={"authorization": f"Bearer {key}"}, timeout=30
            )
            for key in (*keys, "wrong")
        )
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="soak")
        self._places = threading.Semaphore(AT_ONCE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def visits(self) -> int:
        """How many have ended."""
        return sum(map(sum, (c.values() for c in (self.done, self.refused, self.wrong))))

    def __enter__(self) -> MixedLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No more visits begin; those that have begun come to their end."""
        self._stop.set()
        self._thread.join()
        self._threads.shutdown(wait=True)
        for client in self._http:
            client.close()
        self._orchestrator.close()

    def _run(self) -> None:
        kinds = list(ACTIONS)
        weights = list(ACTIONS.values())
        number = 0
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._chance.expovariate(self._rate), time.monotonic() - 1)
            [action] = self._chance.choices(kinds, weights)
            number += 1
            visit = Visit(
                orchestrator=self._orchestrator,
                http=self._http,
                chance=random.Random(self._chance.randrange(2**32)),
                number=number,
            )
            self._places.acquire()
            self._threads.submit(self._carry_out, action, visit)

    def _carry_out(self, action: Callable[[Visit], None], visit: Visit) -> None:
        name = action.__name__
        try:
            action(visit)
        except AWAY:
            self.refused[name] += 1
        except httpx2.HTTPStatusError as error:
            # 503 says that Redis is away.
            away = error.response.status_code == 503
            self._note(name, None if away else f"{error}: {error.response.text[:300]}")
        except (AgentAPIError, AssertionError) as error:
            self._note(name, f"{type(error).__name__}: {error}")
        except BaseException as error:
            self._note(name, f"{type(error).__name__}: {error}")
            raise
        else:
            self.done[name] += 1
        finally:
            self._places.release()

    def _note(self, name: str, problem: str | None) -> None:
        if problem is None:
            self.refused[name] += 1
            return
        self.wrong[name] += 1
        if len(self.problems) < 20:
            self.problems.append(f"{name}: {problem}")
