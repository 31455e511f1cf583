"""Run the demo."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentapi import TurnFailed
from agentapi.errors import TurnTimeout
from agentapi.providers.builtin import providers
from agentapi.providers.choice import model_choices
from agentapi.urls import without_password
from orchestrator.client import Orchestrator
from orchestrator.demo.check import check_history
from orchestrator.demo.report import print_report, totals
from orchestrator.handle import TurnHandle
from orchestrator.stack import Stack
from orchestrator.turn_request import TurnRequest
from orchestrator.wording import counted

AGENTS = ("support", "research", "edit", "summarise", "analyse", "plan")


def run_demo(
    console: Console,
    *,
    provider: str = "offline",
    conversations: int = 40,
    turns: int = 5,
    workers: int = 2,
    folder: Path = Path(".agentapi/demo"),
    timeout: float = 300.0,
    keep: Callable[[Stack], None] | None = None,
) -> bool:
    """Start a stack, run overlapping conversations, print a report, stop everything.

    Args:
        console: Where to print.
        provider: The provider of the example agents; a real one reads its key from the environment.
        conversations: Number of conversations at the same time.
        turns: Turns in each conversation.
        workers: Worker processes.
        folder: Folder for data and logs; it is deleted first.
        timeout: Maximum seconds for all turns.
        keep: Called after the report with the running stack, which then includes a gateway; the
            stack is stopped when this returns.

    Returns:
        Whether every history contains exactly its turns in order, and every worker ran turns.

    Raises:
        AgentAPIError: The stack does not start, or the provider has no key.
    """
    # Workers inherit the key from this environment. Check it now, or every turn would fail.
    asyncio.run(_check(provider))
    shutil.rmtree(folder, ignore_errors=True)
    stack = Stack(
        folder,
        agents=("examples.agents",),
        workers=workers,
        gateway=keep is not None,
        env={"AGENTAPI_EXAMPLE_PROVIDER": provider},
        # Few slots in each worker, so that even a short run uses all workers.
        concurrency=8,
    )
    with console.status("starting Valkey, workers and Flower"):
        stack.start()
    try:
        console.print(
            f"Valkey  {without_password(stack.redis_url)}\n"
            f"Flower  {stack.flower_for_people}\nlogs    {folder}/logs"
        )
        with Orchestrator(stack.settings) as orchestrator:
            well = _run(console, stack, orchestrator, _requests(conversations, turns), timeout)
        if keep is not None:
            keep(stack)
        return well
    finally:
        with console.status("stopping"):
            stack.stop()


async def _check(provider: str) -> None:
    """Create a client of the provider, without a call.

    Raises:
        InvalidAgent: There is no such provider.
        ProviderMisconfigured: Its key is not set.
    """
    try:
        for choice in model_choices("demo", provider, None):
            providers.get(choice.provider)
    finally:
        await providers.aclose()


def _requests(conversations: int, turns: int) -> list[TurnRequest]:
    """One turn of each conversation in rotation, so that all conversations overlap."""
    return [
        TurnRequest(
            agent=AGENTS[number % len(AGENTS)],
            message=_message(number, turn, turns),
            conversation_id=f"demo:{number:03d}",
        )
        for turn in range(turns)
        for number in range(conversations)
    ]


def _message(number: int, turn: int, turns: int) -> str:
    if turn == turns - 1 and turns > 1:
        return "What did I say so far?"
    if turn == 1 and AGENTS[number % len(AGENTS)] == "support":
        return f'Please use lookup_order {{"order_id": "{7 + number % 3}"}} and tell me.'
    return f"Message {turn + 1} of conversation {number}."


def _run(
    console: Console,
    stack: Stack,
    orchestrator: Orchestrator,
    requests: Sequence[TurnRequest],
    timeout: float,
) -> bool:
    started = time.monotonic()
    handles = orchestrator.enqueue_many(requests)
    problems = _wait(console, handles, started + timeout)
    elapsed = time.monotonic() - started
    infos = [handle.info() for handle in handles]
    ended = [info for info in infos if info.status.ended]
    if not ended:
        console.print("[red]no turn has ended[/red]; see the logs")
        return False
    by_conversation = {
        conversation_id: [info for info in infos if info.conversation_id == conversation_id]
        for conversation_id in dict.fromkeys(info.conversation_id for info in infos)
    }
    messages: dict[str, int] = {}
    for conversation_id, its in by_conversation.items():
        history = orchestrator.history(conversation_id)
        messages[conversation_id] = len(history)
        completed = [(info.turn_id, info.input) for info in its]
        problems += check_history(conversation_id, completed, history)
    served = {info.worker for info in infos if info.worker}
    if len(served) < len(stack.workers):
        problems.append(f"{len(served)} of {len(stack.workers)} workers served")
    print_report(console, by_conversation, messages, totals(ended, elapsed))
    console.print(f"Flower saw {counted(_tasks_in_flower(stack), 'task')}")
    for problem in problems:
        console.print(f"[red]wrong[/red] {problem}")
    if not problems:
        console.print(
            f"[green]all is well[/green]: {len(by_conversation)} histories hold exactly their "
            f"turns, in order; {counted(len(served), 'worker')} served"
        )
    return not problems


def _wait(console: Console, handles: Sequence[TurnHandle], deadline: float) -> list[str]:
    problems: list[str] = []
    columns = (
        TextColumn("turns"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("turns", total=len(handles))
        for handle in handles:
            try:
                handle.result(timeout=max(0.1, deadline - time.monotonic()))
            except (TurnFailed, TurnTimeout) as error:
                problems.append(str(error))
            progress.advance(task)
    return problems


def _tasks_in_flower(stack: Stack, timeout: float = 3.0) -> int:
    """How many tasks Flower's HTTP API lists, once the number no longer grows."""
    seen = 0
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            answer = httpx2.get(
                f"{stack.flower_url}/api/tasks",
                params={"limit": 100_000},
                auth=stack.flower_auth,
                timeout=5,
            )
            count = len(answer.json())
        except httpx2.HTTPError:
            count = 0
        if count and count == seen:
            break
        seen = count
        time.sleep(0.3)
    return seen
