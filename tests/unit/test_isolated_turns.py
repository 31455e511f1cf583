"""A suspect turn's job is answered, whatever goes wrong while its worker deals with it."""

from __future__ import annotations

import selectors
import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from agentapi.supervision import Supervisor
from workers.isolation import IsolatedTurns
from workers.isolation.messages import Died
from workers.isolation.watchdog import Watchdog
from workers.outage import Outage
from workers.turns.suspect import SuspectTurn


def test_a_job_is_answered_when_passing_its_turn_on_raises() -> None:
    def send(_: Any) -> None:
        raise RuntimeError

    fake: Any = SimpleNamespace(send=send)
    service = Supervisor(fatal=None).watched("isolation")
    ours, theirs = socket.socketpair()
    turn = SuspectTurn(job=1, conversation_id="c", turn_id="t", agent="a", process="p", owner="w")
    with ours, theirs, ThreadPoolExecutor(1) as threads:
        turns = IsolatedTurns(
            places=1,
            store=fake,
            dispatcher=fake,
            threads=threads,
            outage=Outage(),
            service=service,
            _control=ours,
        )
        answers: list[dict[str, Any]] = []
        turns.run(turn, answers.append)
        turns._in_thread(1, turns._pass_on)
    assert answers == [{"status": "lost"}]
    assert turns.count == 0
    assert service.status().failures == 1


def test_a_watchdog_outlives_a_worker_that_left_a_message_unread() -> None:
    ours, theirs = socket.socketpair()
    watchdog = Watchdog(theirs, run=lambda _: {}, on_death=lambda _: None, places=1)
    watchdog._selector.register(theirs, selectors.EVENT_READ)
    watchdog._send(Died(job=1, code=9))
    ours.close()
    with theirs:
        assert not watchdog._take_requests()
        watchdog._send(Died(job=2, code=9))


def test_a_worker_that_lost_its_watchdog_still_runs_no_suspect_turn_itself() -> None:
    fake: Any = SimpleNamespace()
    service = Supervisor(fatal=None).watched("isolation")
    with ThreadPoolExecutor(1) as threads:
        turns = IsolatedTurns(
            places=1, store=fake, dispatcher=fake, threads=threads, outage=Outage(), service=service
        )
        assert not turns.available
        turns._control, other = socket.socketpair()
        turns.stop()
        other.close()
        assert turns.available
