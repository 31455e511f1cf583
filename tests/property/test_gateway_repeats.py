"""Every call of a script of the gateway, made again as when its answer was lost: same state, same
answer.

The exceptions are named here. `rate` counts each request, a repeat too. `drop` answers `missing`
when it is repeated after what the conversation left was wiped: nobody wipes before it has the
answer.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import count
from typing import cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentapi.conversation.messages import (
    Attachment,
    AttachmentKind,
    Message,
    UserMessage,
    dumps,
    loads,
)
from agentapi.errors import TurnNotFound
from agentapi.ids import create_turn_id
from agentapi.redis.keys import turn_keys
from agentapi.stores import Dropped, ForgottenTurn, StoredMessage, Unended
from agentapi.stores.conversations import END
from agentapi.stores.redis import conversation_scripts
from agentapi.stores.redis.scripts import SCRIPTS as STORES
from agentapi.turns import OnBusy
from orchestrator.gateway.conversations import deletion, forks, history
from orchestrator.gateway.conversations.forks import Continuation, continue_turn
from orchestrator.gateway.http.errors import Conflict, InvalidRequest, NotFound, RateLimited
from orchestrator.gateway.tenants.ledger import Admission, _keys
from orchestrator.gateway.tenants.scripts import SCRIPTS as TENANTS
from orchestrator.gateway.turn_submission import Existing, NewMessage, Unnamed, accept
from tests.conformance.stores import completed
from tests.property.gateway_twice import COUNT_AGAIN, TENANT, Rig, gateway_twice
from tests.property.repeating import Repeats, answers_of
from tests.property.test_repeats import EXAMPLES

MINUTE = 61.0


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done in steps takes several here."""
    monkeypatch.setattr(history, "SCAN_MESSAGES", 64)
    monkeypatch.setattr(history, "SCAN_BYTES", 1_000)
    monkeypatch.setattr(forks, "_STEP_BYTES", 1_000)
    monkeypatch.setattr(conversation_scripts, "WIPE_MESSAGES", 5)


def said(count: int) -> list[Message]:
    return [UserMessage(content=f"message {number}") for number in range(count)]


def kept(rig: Rig, conversation: str, position: int) -> StoredMessage:
    raw = rig.client.lindex(rig.keys(conversation).messages, position)
    assert isinstance(raw, bytes)
    return StoredMessage(position=position, raw=raw, message=loads(raw))


def counted(rig: Rig) -> dict[str, int]:
    found = cast("dict[bytes, bytes]", rig.client.hgetall(_keys(TENANT)[1]))
    return {name.decode(): int(number) for name, number in found.items()}


async def walk(rig: Rig) -> None:
    """Every script by each of its ways."""
    for step in (
        _requests,
        _turns_in_flight,
        _bytes,
        _audits,
        _chats,
        _turns_let_in,
        _conversations,
        _histories,
        _forks,
        _items,
        _turns_that_go,
        _conversations_that_go,
    ):
        await step(rig)


async def _requests(rig: Rig) -> None:
    limiter = rig.gateway.rate_limiter
    allowance, refusal = await limiter.request(TENANT)
    assert refusal is None
    assert allowance is not None
    assert allowance.left == 2
    # The repeat has counted too.
    allowance, refusal = await limiter.request(TENANT)
    assert allowance is not None
    assert allowance.left == 0
    _, refusal = await limiter.request(TENANT)
    assert refusal is not None


def asked(size: int = 100) -> Admission:
    turn_id = create_turn_id("asked")
    return Admission(turn_id=turn_id, conversation_id="asked", bytes=size, turn_bytes=size)


async def _turns_in_flight(rig: Rig) -> None:
    ledger = rig.another_ledger(gateway_turns_in_flight=2, gateway_stored_bytes=2_000)
    one, two, three = (asked() for _ in range(3))
    assert await ledger.admit(TENANT, one)
    assert not await ledger.admit(TENANT, one)
    assert await ledger.admit(TENANT, two)
    with pytest.raises(RateLimited):
        await ledger.admit(TENANT, three)
    # Who is not in Redis after a minute never will be.
    rig.clock.tick(MINUTE)
    assert await ledger.admit(TENANT, three)
    assert counted(rig)["c:asked"] == 300
    await ledger.withdraw(TENANT, three, stored=False)
    assert await ledger.admit(TENANT, two)
    for _ in range(2):
        await ledger.withdraw(TENANT, two)
    assert counted(rig)["c:asked"] == 300
    # Too many bytes, until what is not there is counted no more.
    with pytest.raises(RateLimited):
        await ledger.admit(TENANT, asked(1_000))
    rig.clock.tick(MINUTE)
    assert await ledger.admit(TENANT, asked(800))
    no_turns = rig.another_ledger(gateway_turns_in_flight=0, gateway_stored_bytes=10_000)
    before = counted(rig)
    assert await no_turns.admit(TENANT, one)
    assert counted(rig)["total"] == before["total"] + 200
    await no_turns.withdraw(TENANT, one)
    assert counted(rig) == before
    no_bytes = rig.another_ledger(gateway_turns_in_flight=9, gateway_stored_bytes=0)
    assert await no_bytes.admit(TENANT, one)
    await no_bytes.withdraw(TENANT, one, stored=False)
    assert counted(rig) == before


async def _bytes(rig: Rig) -> None:
    tenant, ledger = "bytes", rig.another_ledger(gateway_stored_bytes=1_000)
    await ledger.charge(tenant, "c", 900)
    with pytest.raises(RateLimited):
        await ledger.charge(tenant, "d", 900)
    rig.clock.tick(MINUTE)
    await ledger.charge(tenant, "d", 900)
    await ledger.refund(tenant, "d", 500)
    for _ in range(2):
        await ledger.dropped(tenant, "d")
    await ledger.forgotten(
        tenant, [ForgottenTurn(accepted_at=hour * 3600.0, input_bytes=100) for hour in (1, 2)]
    )
    stored = rig.client.hgetall(_keys(tenant)[1])
    assert stored[b"total"] == b"0"


async def _audits(rig: Rig) -> None:
    await rig.fill("audited", said(10))
    await rig.ledger.charge(TENANT, rig.view.internal("gone"), 100)
    assert await rig.ledger.audit(TENANT, 0) >= 2
    assert f"c:{rig.view.internal('gone')}" not in counted(rig)
    # Something was counted since it was looked at.
    await rig.ledger._call("settle", _keys(TENANT)[1:], [rig.view.internal("audited"), 1, 0])
    assert counted(rig)[f"c:{rig.view.internal('audited')}"] > 1
    rig.clock.tick(40 * 86_400)
    assert await rig.ledger.audit(TENANT, 0) >= 1
    assert not [name for name in counted(rig) if name.startswith("h:")]


async def _chats(rig: Rig) -> None:
    chats = rig.gateway.stored_chats
    for turn_id in ("b", "a"):
        await chats.add(TENANT, turn_id)
        rig.clock.tick()
    await chats.add(TENANT, "b")
    assert [turn_id async for turn_id in chats.ids(TENANT, None, up=True)] == ["b", "a"]
    assert [turn_id async for turn_id in chats.ids(TENANT, "a", up=False)] == ["b"]
    rig.clock.tick(3 * rig.gateway.settings.turn_retention)
    await chats.add(TENANT, "c")
    assert [turn_id async for turn_id in chats.ids(TENANT, None, up=True)] == ["c"]


async def _turns_let_in(rig: Rig) -> None:
    message = NewMessage(agent="a", text="hi", idempotency_key="key")
    begun = Unnamed(
        conversation_id="begun", before=said(2), operation="begun", user_id=None, idle_time=60
    )
    for destination in (Existing(conversation_id="let in"), begun):
        turn_id = await accept(rig.view, message, destination)
        before = counted(rig)
        assert await accept(rig.view, message, destination) == turn_id
        assert counted(rig) == before
    assert rig.client.llen(rig.keys("begun").messages) == 2


async def _conversations(rig: Rig) -> None:
    view, name = rig.view, "made"
    with pytest.raises(NotFound):
        await view.append(name, said(1), make=False)
    await view.open(name, make=True, user="ann", idle=60)
    await view.open(name, make=False, metadata={"a": "b"})
    for operation in ("one", "two", "one"):
        await view.open(name, make=False, operation=operation, messages=said(2))
    assert rig.client.llen(rig.keys(name).messages) == 4
    rig.queued(name)
    assert (await view.append(name, said(1), make=False)).metadata == {"a": "b"}
    assert await rig.store.open(view.internal(name), "another", make=True) is None


async def _histories(rig: Rig) -> None:
    await rig.fill("long", said(100))
    newest = rig.ended("long")
    attached = Attachment(kind=AttachmentKind.IMAGE, blob="b" * 64, size=5, media_type="image/png")
    await rig.fill("long", [UserMessage(content="see", attachments=(attached,))])
    long = rig.view.history("long")
    for first, up in ((0, True), (90, True), (200, True), (0, False)):
        assert await long.piece(first, 99, up=up, most=500) is not None
    assert (await long.seek(newest)) is not None
    assert await long.seek("none") is None
    whole = await long.measure(102, END)
    assert await long.measure(50, 100) < whole
    other = history.History(rig.store, rig.view.internal("long"), "another")
    assert await other.piece() is None
    assert await other.seek(newest) is None
    assert await other.measure(9, 9) == 0


async def _forks(rig: Rig) -> None:
    view, name = rig.view, "source"
    image = Attachment(kind=AttachmentKind.IMAGE, blob="b" * 64, size=5, media_type="image/png")
    await rig.fill(name, [UserMessage(content="see", attachments=(image,)), *said(50)])
    rig.client.hset(rig.keys(name).blobs, "b" * 64, b"bytes")
    first, second = rig.ended(name), rig.ended(name)
    plan = await continue_turn(view, first, "op")
    assert plan.conversation_id != name
    copy, source = rig.keys(plan.conversation_id), rig.keys(name)
    for _ in range(2):
        assert await plan.make(view) is plan
        assert rig.client.lrange(copy.messages, 0, -1) == rig.client.lrange(source.messages, 0, -3)
    assert rig.client.hgetall(copy.blobs) == {b"b" * 64: b"bytes"}
    # Of two that continue the newest, one does it where it is.
    here = [await continue_turn(view, second, operation) for operation in ("here", "there")]
    assert [plan.conversation_id for plan in here] == [name] * 2
    assert await here[0].make(view) is here[0]
    assert (await here[1].make(view)).conversation_id != name
    waiting = rig.queued(name)
    assert await rig.store.continue_from(view.internal(name), waiting, "op", take=True)
    assert not await rig.store.continue_from(
        view.internal(name), create_turn_id("none"), "op", take=True
    )
    rig.client.lset(source.messages, 52, "changed")
    another = Continuation(
        turn=plan.turn, operation="op", conversation_id=here[0].conversation_id, place=plan.place
    )
    with pytest.raises(Conflict):
        await another.make(view)


async def _items(rig: Rig) -> None:
    name, internal = "items", rig.view.internal("items")
    await rig.fill(name, said(2) * 5)
    assert rig.bench.store.summarise(internal, "text", generation=0, start=0, stop=3)
    for position, operation in ((0, "first"), (8, "last"), (2, "middle")):
        message = kept(rig, name, position)
        assert await rig.store.remove(internal, TENANT, message, operation)
    stale = kept(rig, name, 0)
    assert await rig.store.remove(internal, TENANT, stale, "one")
    assert not await rig.store.remove(internal, TENANT, stale, "another")
    assert not await rig.store.remove(internal, "another", stale, "other")
    assert rig.client.llen(rig.keys(name).messages) == 6
    assert rig.bench.store.summary(internal).covered == 1


async def _turns_that_go(rig: Rig) -> None:
    name, internal = "turns", rig.view.internal("turns")
    turn_id, waiting = rig.ended(name), rig.queued(name)
    with pytest.raises(Conflict):
        await deletion.delete_turn(rig.view, await rig.view.turn(waiting))
    assert rig.queued(name, on_busy=OnBusy.MERGE) != waiting
    rig.bench.store.cancel(waiting)
    for gone in (turn_id, waiting):
        await deletion.delete_turn(rig.view, await rig.view.turn(gone))
        assert await rig.store.forget(internal, gone) is None


async def _conversations_that_go(rig: Rig) -> None:
    name, internal = "dropped", rig.view.internal("dropped")
    assert await rig.store.drop(internal, TENANT, "none") is None
    await rig.fill(name, said(12))
    turns = [rig.ended(name) for _ in range(3)]
    waiting = rig.queued(name)
    assert await rig.store.drop(internal, TENANT, "early") == Unended(turn_ids=[waiting])
    rig.bench.store.cancel(waiting)
    assert await rig.store.drop(internal, TENANT, "changed", expected=3) is None
    dropped = await rig.store.drop(internal, TENANT, "op", expected=18)
    assert isinstance(dropped, Dropped)
    rig.client.hset(turn_keys(turns[0]).turn, "status", "running")
    freed = await rig.store.wipe(dropped, TENANT)
    # Two of the three that ended, and the one that was cancelled.
    assert [turn.input_bytes for turn in freed] == [len("hi")] * 3
    # What is wiped is found no more.
    assert await rig.store.drop(internal, TENANT, "op", expected=18) is None
    empty = await rig.store.open(rig.view.internal("empty"), TENANT, make=True)
    assert empty is not None
    await deletion.delete_conversation(rig.view, "empty")
    await rig.fill(name, said(3))
    for _ in range(2):
        rig.queued(name)
    await deletion.delete_conversation(rig.view, name)
    assert not rig.client.exists(rig.keys(name).messages, rig.keys(name).meta)


async def test_every_script_of_the_gateway(redis_url: str) -> None:
    tenants, conversations = Repeats(set(), exceptions=COUNT_AGAIN), Repeats(set())
    limits = {"gateway_requests_per_minute": 3}
    async with gateway_twice(redis_url, tenants, conversations, **limits) as rig:
        await walk(rig)
    assert tenants.covered == set(TENANTS.names), "walk() must repeat each script"
    assert answers_of(TENANTS) <= tenants.answers
    assert answers_of(STORES, conversations.covered) <= conversations.answers


class Conversations(RuleBasedStateMachine):
    """What a tenant does with its conversations, in any order.

    Attributes:
        url: Of Redis.
    """

    url: str
    names = st.sampled_from(["a", "b"])

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        entering = self.stack.enter_async_context(
            gateway_twice(self.url, Repeats(set()), Repeats(set()))
        )
        self.rig = self.runner.run(entering)
        self.said: dict[str, list[bytes]] = {}
        self.waiting: dict[str, list[str]] = {"a": [], "b": []}
        self.turns: list[tuple[str, str]] = []
        self.admitted: list[Admission] = []
        self.numbers = count()

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.stack.aclose())
            self.runner.close()

    def messages(self, name: str) -> list[bytes]:
        return self.said.setdefault(name, [])

    @rule(seconds=st.sampled_from([1, 61, 3_600]))
    def time_passes(self, seconds: int) -> None:
        self.rig.clock.tick(seconds)

    @rule(name=names, size=st.integers(0, 7), make=st.booleans())
    def items_are_appended(self, name: str, size: int, make: bool) -> None:
        new = [UserMessage(content=f"item {next(self.numbers)}") for _ in range(size)]
        try:
            self.runner.run(self.rig.view.append(name, new, make=make))
        except NotFound:
            assert not make
            assert name not in self.said
        else:
            assert make or name in self.said
            self.messages(name).extend(map(dumps, new))

    @rule(name=names, end=st.sampled_from([0, -1]), stale=st.booleans())
    def an_item_is_removed(self, name: str, end: int, stale: bool) -> None:
        if not self.said.get(name):
            return
        internal, store = self.rig.view.internal(name), self.rig.store
        position = end % len(self.said[name])
        raw = b"another" if stale else self.said[name].pop(position)
        found = StoredMessage(
            position=position, raw=raw, message=UserMessage(content="not looked at")
        )
        operation = f"operation {next(self.numbers)}"
        removed = self.runner.run(store.remove(internal, TENANT, found, operation))
        assert removed is not stale

    @rule(name=names)
    def a_turn_waits(self, name: str) -> None:
        self.messages(name)
        self.waiting[name].append(self.rig.queued(name))

    @rule(name=names)
    def a_turn_ends(self, name: str) -> None:
        if not self.waiting[name]:
            turn_id = self.rig.ended(name)
            self.turns.append((name, turn_id))
            self.messages(name).extend(map(dumps, completed(turn_id).messages))

    @rule(name=names, last=st.booleans())
    def a_turn_is_cancelled(self, name: str, last: bool) -> None:
        if self.waiting[name]:
            turn_id = self.waiting[name].pop(-1 if last else 0)
            self.rig.bench.store.cancel(turn_id)

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def a_turn_is_continued(self, data: st.DataObject) -> None:
        """In its conversation, or in a copy of what was said up to its end."""
        name, turn_id = data.draw(st.sampled_from(self.turns))
        operation = f"operation {next(self.numbers)}"
        ends = [n for n, raw in enumerate(self.said.get(name, [])) if loads(raw).turn_id == turn_id]
        try:
            plan = self.runner.run(continue_turn(self.rig.view, turn_id, operation))
            made = self.runner.run(plan.make(self.rig.view))
        except (TurnNotFound, InvalidRequest):
            return
        if made.place is not None:
            copy = self.rig.client.lrange(self.rig.keys(made.conversation_id).messages, 0, -1)
            assert copy == self.said[name][: ends[-1] + 1]

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def a_turn_is_forgotten(self, data: st.DataObject) -> None:
        name, turn_id = self.turns.pop(data.draw(st.integers(0, len(self.turns) - 1)))
        forgetting = self.rig.store.forget(self.rig.view.internal(name), turn_id)
        forgotten = self.runner.run(forgetting)
        if isinstance(forgotten, ForgottenTurn):
            self.runner.run(self.rig.ledger.forgotten(TENANT, [forgotten]))

    @rule(name=names)
    def a_conversation_is_deleted(self, name: str) -> None:
        deleting = deletion.delete_conversation(self.rig.view, name)
        if name not in self.said:
            with pytest.raises(NotFound):
                self.runner.run(deleting)
            return
        self.runner.run(deleting)
        del self.said[name]
        self.waiting[name].clear()

    @rule(size=st.integers(1, 5_000))
    def a_turn_is_admitted(self, size: int) -> None:
        self.admitted.append(asked(size))
        assert self.runner.run(self.rig.ledger.admit(TENANT, self.admitted[-1]))

    @precondition(lambda self: self.admitted)
    @rule(stored=st.booleans())
    def a_turn_is_withdrawn(self, stored: bool) -> None:
        gone = self.admitted.pop()
        self.runner.run(self.rig.ledger.withdraw(TENANT, gone, stored=stored))

    @rule(age=st.sampled_from([0, 60_000]), most=st.integers(1, 3))
    def bytes_are_looked_at(self, age: int, most: int) -> None:
        self.runner.run(self.rig.ledger.audit(TENANT, age, most))

    @invariant()
    def every_message_is_there_once(self) -> None:
        for name in ("a", "b"):
            found = self.rig.client.lrange(self.rig.keys(name).messages, 0, -1)
            assert found == self.said.get(name, [])

    @invariant()
    def bytes_add_up(self) -> None:
        numbers = counted(self.rig)
        numbers.pop("hour", None)
        total = numbers.pop("total", 0)
        assert total == sum(numbers.values())
        assert all(number > 0 for number in numbers.values())


def test_every_call_of_the_gateway_at_every_point(redis_url: str) -> None:
    machine = type("Machine", (Conversations,), {"url": redis_url})
    run_state_machine_as_test(machine, settings=EXAMPLES)
