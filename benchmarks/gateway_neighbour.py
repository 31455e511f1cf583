"""How a tenant's huge conversation affects others: ``python -m benchmarks.gateway_neighbour``.

A conversation of 100,000 messages is written through the gateway's store. Then the tenant that owns
it lists, reads, searches, appends, removes, continues, forks and deletes over HTTP with several
clients at the same time, while another tenant sends light requests, one after the other: one item
of a small conversation, and the list of models. The table shows how long the light requests took in
each phase. Valkey, a worker, the gateway and all clients share this machine.

The exit code is 1 if a light request took longer than ``--limit``.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import multiprocessing
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

import httpx2
import typer
from rich.console import Console
from rich.table import Table

from agentapi.conversation.messages import AssistantMessage, Message, UserMessage
from benchmarks.stats import percentile
from orchestrator.gateway.ids import user_item_id
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import load_gateway_settings
from orchestrator.gateway.view import TenantView
from orchestrator.stack import Stack

BATCH: Final = 1_000
"""Messages in one write while the conversation is filled."""

HUGE: Final = "huge"
AGENT: Final = "plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The tenant with the huge conversation, with what its clients need.

    Attributes:
        url: The gateway's address.
        key: The tenant's API key.
        messages: How many messages the conversation had when it was filled.
        response: A response in the conversation that is not the newest, so continuing it makes a
            fork.
    """

    url: str
    key: str
    messages: int
    response: str

    def client(self) -> httpx2.AsyncClient:
        """A client of this tenant."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=120)


Action: TypeAlias = Callable[[Owner, httpx2.AsyncClient], Awaitable[httpx2.Response]]


async def list_items(owner: Owner, client: httpx2.AsyncClient) -> httpx2.Response:
    """Read a page of items from a random position, in either direction."""
    query: dict[str, str | int] = {
        "limit": 100,
        "order": random.choice(["asc", "desc"]),
        "after": _some_item(owner),
    }
    return await client.get(f"/v1/conversations/{HUGE}/items", params=query)


async def read_messages(owner: Owner, client: httpx2.AsyncClient) -> httpx2.Response:
    """Read a page of messages from a random position."""
    query: dict[str, str | int] = {"limit": 1000, "after": random.randrange(owner.messages)}
    return await client.get(f"/conversations/{HUGE}/messages", params=query)


async def find_item(owner: Owner, client: httpx2.AsyncClient) -> httpx2.Response:
    """Read an item that the gateway must search for."""
    return await client.get(f"/v1/conversations/{HUGE}/items/{_some_item(owner)}")


async def append_items(owner: Owner, client: httpx2.AsyncClient) -> httpx2.Response:
    """Append twenty messages."""
    item = {"type": "message", "role": "user", "content": "more " + "x" * 300}
    return await client.post(f"/v1/conversations/{HUGE}/items", json={"items": [item] * 20})


async def remove_item(owner: Owner, client: httpx2.AsyncClient) -> httpx2.Response:
    """Remove a random message."""
    return await client.delete(f"/v1/conversations/{HUGE}/items/{_some_item(owner)}")


async def continue_it(owner: Owner, client: httpx2.AsyncClient) -> httpx2.Response:
    """Run a turn in the conversation."""
    body = {"model": AGENT, "input": "go on", "conversation": HUGE}
    return await client.post("/v1/responses", json=body)


async def fork_and_delete(owner: Owner, client: httpx2.AsyncClient) -> httpx2.Response:
    """Run a turn in a copy of the conversation, and delete the copy."""
    body = {"model": AGENT, "input": "instead", "previous_response_id": owner.response}
    made = await client.post("/v1/responses", json={**body, "background": True})
    if made.status_code != 200:
        return made
    digits = made.json()["id"].removeprefix("resp_")
    turn = await client.get(f"/turns/{digits[:3]}-{digits[3:]}")
    return await client.delete(f"/conversations/{turn.json()['conversation_id']}")


ACTIONS: Final[dict[str, Action]] = {
    "lists items": list_items,
    "reads messages": read_messages,
    "searches items": find_item,
    "appends": append_items,
    "removes items": remove_item,
    "continues": continue_it,
    "forks and deletes": fork_and_delete,
}

EXPECTED: Final = frozenset({200, 400, 404, 409})
"""Expected statuses of the owner's requests: another client may have removed or moved an item."""


def _name(number: int) -> str:
    """The value used as turn id for a message that no turn created."""
    return f"item-{uuid.uuid5(uuid.NAMESPACE_OID, f'neighbour:{number}').hex}"


def _message(number: int) -> Message:
    if number % 2 == 0:
        return UserMessage(content=f"question {number} " + "x" * 300, turn_id=_name(number))
    return AssistantMessage(content=f"answer {number} " + "y" * 200, turn_id=_name(number))


def _some_item(owner: Owner) -> str:
    # Every second message is the user's.
    return user_item_id(_name(2 * random.randrange(owner.messages // 2)))


async def fill(stack: Stack, tenant: str, name: str, messages: int) -> None:
    """Write a conversation through the gateway's store."""
    gateway = Gateway(load_gateway_settings(redis_url=stack.redis_url))
    view = TenantView(gateway, tenant)
    try:
        for start in range(0, messages, BATCH):
            batch = [_message(number) for number in range(start, min(start + BATCH, messages))]
            await view.open(name, make=True, operation=uuid.uuid4().hex, messages=batch)
    finally:
        await gateway.aclose()


async def make_key(stack: Stack, tenant: str) -> str:
    """Create an API key for a tenant."""
    gateway = Gateway(load_gateway_settings(redis_url=stack.redis_url))
    try:
        return (await gateway.keys.create(tenant))[1]
    finally:
        await gateway.aclose()


def respond(owner: Owner) -> str:
    """Create two responses in the conversation; returns the id of the first."""
    headers = {"authorization": f"Bearer {owner.key}"}
    with httpx2.Client(base_url=owner.url, headers=headers, timeout=60) as client:
        body = {"model": AGENT, "input": "hello", "conversation": HUGE}
        made = [client.post("/v1/responses", json=body).raise_for_status() for _ in range(2)]
    return str(made[0].json()["id"])


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Signals between the measuring process and the owner's process."""

    ready: Event
    stop: Event
    report: Any


def busy(owner: Owner, names: list[str], clients: int, signals: Signals) -> None:
    """Run the owner's clients in a separate process until told to stop."""

    async def client_of(action: Action, client: httpx2.AsyncClient, counts: Counter[int]) -> None:
        while not signals.stop.is_set():
            counts[(await action(owner, client)).status_code] += 1

    async def run() -> Counter[int]:
        counts: Counter[int] = Counter()
        actions = itertools.islice(itertools.cycle(ACTIONS[name] for name in names), clients)
        async with owner.client() as client:
            await client.get("/v1/models")
            signals.ready.set()
            await asyncio.gather(*(client_of(action, client, counts) for action in actions))
        return counts

    signals.report.put(asyncio.run(run()))


@contextmanager
def others(owner: Owner, names: list[str], clients: int) -> Iterator[Counter[int]]:
    """Run the owner's clients during the block; afterwards the counter has their answers."""
    counts: Counter[int] = Counter()
    if not names:
        yield counts
        return
    context = multiprocessing.get_context("spawn")
    signals = Signals(ready=context.Event(), stop=context.Event(), report=context.SimpleQueue())
    process = context.Process(target=busy, args=(owner, names, clients, signals), daemon=True)
    process.start()
    if not signals.ready.wait(60):
        raise RuntimeError("the owner's clients did not start")
    yield counts
    signals.stop.set()
    counts.update(signals.report.get())
    process.join()


def probe(url: str, key: str, item: str, seconds: float) -> list[float]:
    """Send the light requests one after the other; returns the milliseconds of each."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    headers = {"authorization": f"Bearer {key}"}
    paths = itertools.cycle([f"/v1/conversations/small/items/{item}", "/v1/models"])
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        connection.request("GET", next(paths), headers=headers)
        response = connection.getresponse()
        response.read()
        took.append((time.perf_counter() - began) * 1000)
        if response.status != 200:
            raise RuntimeError(f"a light request was answered with {response.status}")
        time.sleep(0.002)
    connection.close()
    return took


def main(
    messages: Annotated[int, typer.Option(help="Messages of the huge conversation.")] = 100_000,
    clients: Annotated[int, typer.Option(help="Its owner's clients at the same time.")] = 8,
    seconds: Annotated[float, typer.Option(help="Length of each phase.")] = 10.0,
    limit: Annotated[float, typer.Option(help="Milliseconds a light request may take.")] = 100.0,
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(ACTIONS)}.")] = None,
) -> None:
    """Measure, and print the results."""
    if unknown := set(only or ()) - ACTIONS.keys():
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: expected {', '.join(ACTIONS)}")
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(
            Path(folder),
            agents=("benchmarks.agents",),
            workers=1,
            flower=False,
            gateway=True,
            gateway_requests_per_minute=0,
            gateway_turns_in_flight=0,
            gateway_fork_bytes=2**30,
            gateway_stored_bytes=0,
        ) as stack,
    ):
        url = stack.gateway_url or ""
        owner = Owner(
            url=url, key=asyncio.run(make_key(stack, "huge")), messages=messages, response=""
        )
        asyncio.run(fill(stack, "huge", HUGE, messages))
        owner = Owner(url=url, key=owner.key, messages=messages, response=respond(owner))
        key = asyncio.run(make_key(stack, "small"))
        asyncio.run(fill(stack, "small", "small", 2))
        item = user_item_id(_name(0))
        probe(url, key, item, 1.0)
        phases: dict[str, list[str]] = {"is idle": [], **{name: [name] for name in only or ACTIONS}}
        if only is None:
            phases["does all of that"] = [*ACTIONS]
        if _measure(owner, phases, clients, lambda: probe(url, key, item, seconds)) > limit:
            sys.exit(1)


def _measure(
    owner: Owner,
    phases: Mapping[str, list[str]],
    clients: int,
    measured: Callable[[], list[float]],
) -> float:
    """Run the phases and print the table; returns the longest light request, in milliseconds."""
    table = Table("the other tenant", "its requests", "light requests", "median", "p99", "max")
    longest, strange = 0.0, Counter[int]()
    for phase, names in phases.items():
        with others(owner, names, clients) as counts:
            took = measured()
        longest = max(longest, *took)
        strange.update({code: n for code, n in counts.items() if code not in EXPECTED})
        table.add_row(
            phase,
            str(counts.total()),
            str(len(took)),
            *(f"{percentile(took, share):.1f} ms" for share in (0.5, 0.99, 1.0)),
        )
    Console(width=110).print(table)
    if strange:
        print(f"unexpected statuses of the other tenant's requests: {dict(strange)}")
    return longest


if __name__ == "__main__":
    typer.run(main)
