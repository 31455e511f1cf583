"""Small parts of the gateway that need no server."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agentapi import InvalidContext
from agentapi.conversation.user_input import File, Image
from agentapi.turns import Turn, TurnStatus
from orchestrator.gateway.agent_directory import AgentDirectory
from orchestrator.gateway.http.errors import InvalidRequest, RateLimited
from orchestrator.gateway.openai.attachments import check_addresses
from orchestrator.gateway.openai.public_urls import is_public
from orchestrator.gateway.settings import load_gateway_settings
from orchestrator.gateway.tenants.concurrency import RequestSlot, TenantConcurrency
from orchestrator.gateway.tenants.stream_slots import StreamSlots
from orchestrator.gateway.turn_labels import RESERVED, Labels, labelled, labels_of, metadata_of
from orchestrator.gateway.turn_submission import Existing, NewMessage, accept
from orchestrator.gateway.view import TenantView


async def test_a_gateway_that_knows_the_agents_checks_contexts_before_it_counts() -> None:
    class Counted(Exception):
        pass

    async def admit(tenant: str, admission: object) -> bool:
        raise Counted

    settings = load_gateway_settings(agents=("tests.acceptance.agents",))
    gateway = SimpleNamespace(
        settings=settings,
        agents=AgentDirectory(settings, SimpleNamespace()),  # type: ignore[arg-type]
        ledger=SimpleNamespace(admit=admit),
    )
    view = TenantView(gateway, "acme")  # type: ignore[arg-type]

    async def send(context: dict[str, Any]) -> None:
        message = NewMessage(agent="shop", text="hi", idempotency_key="k", context=context)
        await accept(view, message, Existing(conversation_id="c"))

    with pytest.raises(InvalidContext, match="age: Input should be a valid integer"):
        await send({"age": "old"})
    with pytest.raises(Counted):
        await send({"age": 7})


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org.",
        "images.example.org:8443",
        "8.8.8.8",
        "user:password@example.org",
        "[2606:4700:4700::1111]",
        "xn--bcher-kva.example",
    ],
)
def test_public_addresses(host: str) -> None:
    assert is_public(f"https://{host}/a.png")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.169.254.",
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]",
        "[fe80::1%25eth0]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "127.0.0.1",
        "127.1",
        "[::1]",
        "[::]",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.0.1",
        "localhost",
        "LOCALHOST",
        "me.localhost",
        "metadata.google.internal",
        "metadata",
        "valkey",
        "api.default.svc.cluster.local",
        "\uff11\uff16\uff19.254.169.254",
        "example.org@169.254.169.254",
        "224.0.0.1",
        "",
        "[",
    ],
)
def test_addresses_that_mean_something_else_in_each_network(host: str) -> None:
    assert not is_public(f"http://{host}/latest/meta-data")


def test_addresses_of_attachments() -> None:
    data = Image(data=b"x", media_type="image/png")
    public, inner = Image(url="https://example.org/a.png"), File(url="http://10.0.0.1/a.pdf")
    check_addresses([data], "none", "input")
    check_addresses([data, public], "public", "input")
    check_addresses([public, inner], "any", "input")
    for attached, allowed in ((public, "none"), (inner, "none"), (inner, "public")):
        with pytest.raises(InvalidRequest, match="AGENTAPI_GATEWAY_ADDRESSES") as caught:
            check_addresses([data, attached], allowed, "input")
        assert caught.value.shown_code == "address_not_allowed"


def test_labels_of_another_release_are_read() -> None:
    def turn(labels: object) -> Turn:
        return Turn(
            turn_id="t",
            conversation_id="c",
            agent="a",
            input="hi",
            status=TurnStatus.QUEUED,
            metadata={"mine": 1, RESERVED: labels},
        )

    found = turn({"background": True, "added later": {"a": 1}})
    assert labels_of(found) == Labels(background=True)
    assert metadata_of(found) == {"mine": 1}
    others: tuple[object, ...] = (None, [], "text", {})
    for strange in others:
        assert labels_of(turn(strange)) == Labels()
    stored = labelled({"mine": 1}, Labels(digest="d", seeded=3))
    assert labels_of(turn(stored[RESERVED])) == Labels(digest="d", seeded=3)


def test_a_tenant_has_so_many_stream_slots() -> None:
    slots = StreamSlots(2)
    with slots.hold("a"), slots.hold("a"):
        with pytest.raises(RateLimited) as caught, slots.hold("a"):
            pass
        assert caught.value.shown_code == "streams_exceeded"
        with slots.hold("b"):
            pass
    with slots.hold("a"):
        assert slots._taken == {"a": 1}
    assert slots._taken == {}
    unlimited = StreamSlots(0)
    with unlimited.hold("a"), unlimited.hold("a"), unlimited.hold("a"):
        pass


async def test_long_reads_of_one_tenant_do_not_hold_another_up() -> None:
    reads = TenantConcurrency(2)
    running = dict.fromkeys("ab", 0)
    go_on = asyncio.Event()

    async def step(tenant: str) -> None:
        async with reads.slot(tenant):
            running[tenant] += 1
            await go_on.wait()

    steps = [asyncio.create_task(step(tenant)) for tenant in "aaaaab"]
    for _ in range(20):
        await asyncio.sleep(0)
    assert running == {"a": 2, "b": 1}
    steps[4].cancel()
    go_on.set()
    await asyncio.gather(*steps, return_exceptions=True)
    assert running == {"a": 4, "b": 1}
    assert reads._semaphores == {} == reads._users


async def test_the_slot_of_a_request_is_given_back_once() -> None:
    concurrency = TenantConcurrency(1)
    first, second = RequestSlot(concurrency, "a"), RequestSlot(concurrency, "a")
    first.release()
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    first.release()
    await waiting
    # Not the second request's slot.
    first.release()
    assert concurrency._users == {"a": 1}
    second.release()
    assert concurrency._users == {} == concurrency._semaphores
