"""What is to be seen: a shop's conversations, one of each kind, on a fleet that loses a worker."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentapi.turns import TurnStatus
from orchestrator import Orchestrator
from orchestrator.handle import TurnHandle
from orchestrator.stack import Stack
from tests.faults import until
from tests.system.pictures.agents import MODEL, PROVIDER
from tests.system.pictures.past import USERS

WORKERS: Final = 3
_SMALL_TALK: Final = ("Hello!", "Thank you.", "Do you ship to Norway?", "Where is my parcel?")
_PRICES: Final = f'{{"{PROVIDER}:{MODEL}": {{"input": 2.5, "output": 10, "cached": 0.25}}}}'


@dataclass(frozen=True, kw_only=True)
class World:
    """Turns that pages are about.

    Attributes:
        stack: Where they run.
        chat: A conversation of several turns.
        taken_over: A turn whose first worker was killed.
        delegating: A turn with three children.
        asking: A turn that waits for approval.
        failed: A turn that failed.
    """

    stack: Stack
    chat: str
    taken_over: TurnHandle
    delegating: TurnHandle
    asking: TurnHandle
    failed: TurnHandle


def shop(folder: Path, *, agents: Sequence[str] = (), workers: int = WORKERS) -> Stack:
    """The shop's stack, not started.

    Args:
        folder: For data and logs.
        agents: Further modules with agents.
        workers: Worker processes.
    """
    return Stack(
        folder,
        agents=("tests.system.pictures.agents", *agents),
        workers=workers,
        flower=False,
        gateway=True,
        lease_ttl=3,
        heartbeat=0.5,
        dispatch_grace=1,
        shutdown_grace=1,
        concurrency=8,
        env={"AGENTAPI_PRICES": _PRICES},
    )


def populate(stack: Stack, orchestrator: Orchestrator, *, seconds: float) -> World:
    """Let things happen, with some load for the curves, until everything that pages show is there.

    Args:
        stack: A running shop.
        orchestrator: Its producer.
        seconds: How long the load lasts.
    """
    taken_over = _lose_a_worker(stack, orchestrator)
    chat = "customer:ada"
    for message in ("Where is my parcel?", "Can it come on Friday instead?", "Thank you."):
        _ask(orchestrator, "support", message, chat, "ada").result(timeout=60)
    _ask(orchestrator, "support", "Is my invoice right?", "customer:grace", "grace")
    delegating = _ask(
        orchestrator, "analyst", "Compare our three carriers for next year.", "report:2027", "hedy"
    )
    failed = _ask(
        orchestrator, "translator", "Translate the product page into Finnish.", "page:fi", "tim"
    )
    _load(orchestrator, seconds)
    _ask(orchestrator, "support", "I was charged twice.", "customer:donald", "donald")
    asking = _ask(orchestrator, "support", "The lamp arrived broken.", "customer:edsger", "edsger")
    until(lambda: failed.info().status is TurnStatus.FAILED)
    until(lambda: delegating.info().status is TurnStatus.COMPLETED)
    until(lambda: len(list(orchestrator.approvals())) == 2)
    # Still being written when the pictures are taken.
    _ask(orchestrator, "writer", "Write the newsletter for December.", "news:december", "alan")
    return World(
        stack=stack,
        chat=chat,
        taken_over=taken_over,
        delegating=delegating,
        asking=asking,
        failed=failed,
    )


def _ask(
    orchestrator: Orchestrator, agent: str, message: str, conversation_id: str, user: str
) -> TurnHandle:
    return orchestrator.enqueue(
        agent, message, conversation_id=conversation_id, user_id=user, stream=True
    )


def _lose_a_worker(stack: Stack, orchestrator: Orchestrator) -> TurnHandle:
    """Kill the worker of a turn in the middle of it, and start another."""
    turn = _ask(orchestrator, "analyst", "Summarise today's reviews.", "reviews:today", "hedy")

    def holder() -> str:
        info = turn.info()
        # The tool runs when the model's response was recorded.
        return (info.worker or "").partition("@")[0] if info.steps else ""

    until(holder)
    [victim] = [worker for worker in stack.workers if worker.name == holder()]
    victim.kill()
    stack.workers.remove(victim)
    stack.start_worker()
    stack.wait_for_workers(len(stack.workers))
    turn.result(timeout=60)
    return turn


def _load(orchestrator: Orchestrator, seconds: float) -> None:
    chance, end = random.Random(3), time.monotonic() + seconds
    while time.monotonic() < end:
        number = chance.randrange(60)
        _ask(
            orchestrator,
            chance.choice(("support", "writer", "billing")),
            chance.choice(_SMALL_TALK),
            f"customer:{1000 + number}",
            USERS[number % len(USERS)],
        )
        time.sleep(chance.uniform(0.05, 0.5))
