"""Every call of every transition, made again as when its answer was lost, at every point of the
state machines: same state, same answer, on both stores.

The exceptions are named here. `Accepted.created` says whether this very call made the turn, and
`hasten` how many turns it found, for a log line. In one process `reset` and `redispatch` cannot be
repeated: each call is an operation of its own.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from agentapi.conversation.messages import Attachment, AttachmentKind, UserMessage, dumps
from agentapi.errors import AgentAPIError, ConversationBusy
from agentapi.ids import create_turn_id
from agentapi.redis.keys import conversation_keys
from agentapi.signals import LeaseLost
from agentapi.stores import (
    FROM_START,
    CallStore,
    ConversationQuery,
    ConversationStore,
    Dropped,
    Ending,
    ForgottenTurn,
    Fork,
    HookStore,
    NewEvent,
    OpenConversation,
    Place,
    Reading,
    RedisTurnStore,
    Search,
    SearchOn,
    Suspended,
    Telling,
    TurnQuery,
    TurnStore,
    Unended,
)
from agentapi.stores.data import DataStore
from agentapi.stores.redis.scripts import SCRIPTS
from agentapi.stores.telling import MOST_FAILURES
from agentapi.turns import (
    Answers,
    ChildReply,
    ChildTurn,
    ClientCall,
    ClientOutput,
    ClientTool,
    ClientTools,
    Continuation,
    Decision,
    EventType,
    HeldCalls,
    OnAbort,
    OnBusy,
    Question,
    RequestOptions,
    TurnStatus,
    Verdict,
)
from tests.conformance.stores import Bench, C, beside, completed, model_step
from tests.property.repeated_data import archive_walk, data_walk, turns_walk
from tests.property.repeating import BEGAN, READS, Repeats, in_memory_twice, on_redis_twice
from tests.property.test_calls import Calls
from tests.property.test_turn_protocol import TurnProtocol

YES = Decision(verdict=Verdict.APPROVED)

TOOLS = ClientTools(tools=[ClientTool(name="t", parameters={"type": "object"})])

EXAMPLES = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def walk(bench: Bench) -> None:
    """Every transition at least once, most of them by each of their ways."""
    for step in (
        _a_turn_and_its_ends,
        _what_a_busy_conversation_does,
        _waiting_calls,
        _client_calls,
        _steering,
        _lost_workers,
        _deadlines,
        _refusals,
        _the_sweep,
        _histories,
        _conversations,
        _forks,
        _deletions,
        data_walk,
        _lists,
        _hooks,
    ):
        step(bench)


def _a_turn_and_its_ends(bench: Bench) -> None:
    store, turn_id = bench.store, bench.enqueue()
    lease = bench.claim(turn_id).lease
    store.record(lease, 0, model_step())
    store.emit([(lease, 1, [NewEvent(type=EventType.DELTA, data={"text": "x"})])])
    store.renew([lease])
    store.release(lease)
    lease = bench.claim(turn_id).lease
    store.release(lease, 1)
    lease = bench.claim(turn_id).lease
    assert store.park(lease, 1, failures=1, steps=1, reason="provider", names=["openai"], lasted=3)
    store.rouse("openai")
    bench.store.cancel(turn_id)
    done = bench.enqueue()
    lease = bench.claim(done).lease
    behind = bench.enqueue(on_abort=OnAbort.KEEP)
    store.cancel(done)
    assert not store.park(lease, 1, failures=1, steps=0, reason="provider")
    assert store.commit(lease, completed(done)) is not None
    store.commit(bench.claim(behind).lease, Ending(status=TurnStatus.FAILED))
    store.retry(behind, "operation")
    bench.enqueue()
    store.cancel(behind)
    unstored = [bench.enqueue("unstored", options=RequestOptions(store=False)) for _ in "abc"]
    store.commit(bench.claim(unstored[0], "unstored").lease, completed(unstored[0]))
    store.commit(bench.claim(unstored[1], "unstored").lease, Ending(status=TurnStatus.FAILED))
    store.cancel(unstored[2])
    for turn in (turn_id, done):
        store.cancel(turn)


def _what_a_busy_conversation_does(bench: Bench) -> None:
    conversation = "busy"
    first = bench.enqueue(conversation)
    for on_busy in (*OnBusy, *OnBusy):
        with contextlib.suppress(ConversationBusy):
            bench.enqueue(conversation, on_busy=on_busy)
    bench.store.cancel(first)
    bench.store.reset(conversation)
    kept = bench.enqueue(conversation, on_abort=OnAbort.KEEP)
    bench.store.cancel(kept)
    with contextlib.suppress(ConversationBusy):
        bench.enqueue(conversation, on_busy=OnBusy.REJECT)


def _waiting_calls(bench: Bench) -> None:
    store, turn_id = bench.store, bench.enqueue("calls")
    child = ChildTurn(
        call_id="k",
        turn_id=bench.enqueue("child", parent_id=turn_id),
        conversation_id="child",
        agent="a",
        input="hi",
    )
    held = HeldCalls(
        questions=[Question(call_id=c, tool="t", arguments={}, timeout=60) for c in "qr"],
        children=[child],
    )
    lease = bench.claim(turn_id, "calls").lease
    store.calls.suspend(lease, held)
    store.calls.decide(turn_id, "q", YES)
    store.calls.deliver(turn_id, ChildReply(turn_id=child.turn_id, status=TurnStatus.COMPLETED))
    lease = bench.claim(turn_id, "calls").lease
    store.calls.decide(turn_id, "r", YES)
    store.calls.suspend(lease, HeldCalls(questions=held.questions[1:]))
    with pytest.raises(AgentAPIError):
        store.calls.decide(turn_id, "r", Decision(verdict=Verdict.REJECTED))
    store.cancel(turn_id)
    store.calls.suspend(lease, held)
    store.commit(lease, Ending(status=TurnStatus.CANCELLED))
    bench.store.cancel(child.turn_id)
    store.calls.settle([e for e in store.overdue() if not isinstance(e, str)])


def _client_calls(bench: Bench) -> None:
    store, turn_id = bench.store, bench.enqueue("client", client_tools=TOOLS)
    calls = [ClientCall(call_id=c, tool="t", arguments={}, timeout=60) for c in "cd"]
    question = Question(call_id="q", tool="t", arguments={})
    held = HeldCalls(client=calls, questions=[question], responses=1)
    lease = bench.claim(turn_id, "client").lease
    assert store.calls.suspend(lease, held) is Suspended.PARKED
    one = Answers(outputs={"c": ClientOutput(text="one")})
    assert store.calls.answer(turn_id, one) is None
    changed = Continuation(
        part=1,
        metadata={"a": "b"},
        stream=True,
        client_tools=TOOLS,
        options=RequestOptions(instructions="Be brief."),
    )
    both = Answers(
        outputs={**one.outputs, "d": ClientOutput(text="two")},
        decisions={"q": YES},
        continuation=changed,
    )
    assert store.calls.answer(turn_id, both) is not None
    for other in (
        Answers(outputs={"c": ClientOutput(text="other")}),
        Answers(outputs={"none": ClientOutput(text="other")}),
        Answers(decisions={"q": Decision(verdict=Verdict.REJECTED)}),
    ):
        with pytest.raises(AgentAPIError):
            store.calls.answer(turn_id, other)
    lease = bench.claim(turn_id, "client").lease
    store.calls.suspend(lease, HeldCalls(client=calls, responses=1))
    store.commit(lease, Ending(status=TurnStatus.CANCELLED))
    for gone in (turn_id, create_turn_id("client")):
        with pytest.raises(AgentAPIError):
            store.calls.answer(gone, one)


def _steering(bench: Bench) -> None:
    store, turn_id = bench.store, bench.enqueue("steered")
    lease = bench.claim(turn_id, "steered").lease
    late = bench.enqueue("steered", "late")
    steers = [
        bench.enqueue("steered", text, on_busy=OnBusy.STEER) for text in ("a", '"\\/%1 \u00e9')
    ]
    assert store.record(lease, 0, model_step()).steered
    with pytest.raises(AgentAPIError):
        store.steer(lease, 2)
    joined = store.steer(lease, 1)
    assert [step.message.content for step in joined] == ["a", '"\\/%1 \u00e9']
    assert {step.message.turn_id for step in joined} == {turn_id}
    assert store.steer(lease, 1) == joined
    assert store.steer(lease, 3) == []
    assert store.turn(steers[0]).turn_id == turn_id
    bench.expire_lease("steered")
    bench.claim(turn_id, "steered")
    with pytest.raises(LeaseLost):
        store.steer(lease, 3)
    store.cancel(late)


def _lost_workers(bench: Bench) -> None:
    store, turn_id = bench.store, bench.enqueue("lost")
    lease = bench.claim(turn_id, "lost", token="dead:1").lease
    assert store.orphan("dead") == ["lost"]
    bench.try_claim(turn_id, "lost", isolated=False)
    lease = bench.claim(turn_id, "lost", token="alone:1").lease
    assert store.perish("lost", turn_id, "alone") is not None
    with pytest.raises((AgentAPIError, LeaseLost)):
        store.record(lease, 0, model_step())
    store.perish("lost", turn_id, "nobody")
    store.cancel(turn_id)


def _deadlines(bench: Bench) -> None:
    for _ in range(2):
        bench.enqueue("late", deadline_at=1.0)
    late = bench.enqueue("late", deadline_at=1.0)
    bench.store.expire(late)
    bench.store.expire(bench.enqueue("late", timeout=600))
    bench.store.retry(late, "operation")


def _refusals(bench: Bench) -> None:
    """What a script does when it finds that it must do nothing."""
    store, turn_id = bench.store, bench.enqueue("refused")
    behind = bench.enqueue("refused")
    lease = bench.claim(turn_id, "refused").lease
    bench.try_claim(turn_id, "refused")
    bench.try_claim(behind, "refused")
    bench.expire_lease("refused")
    bench.claim(turn_id, "refused")
    for call in (
        lambda: store.record(lease, 0, model_step()),
        lambda: store.commit(lease, completed(turn_id)),
        lambda: store.release(lease),
        lambda: store.park(lease, 1, failures=0, steps=0, reason="provider"),
        lambda: store.calls.suspend(lease, HeldCalls()),
        lambda: store.retry(turn_id, "operation"),
        lambda: store.calls.decide(turn_id, "none", YES),
    ):
        with pytest.raises((AgentAPIError, LeaseLost)):
            call()
    store.renew([lease])
    store.emit([(lease, 1, [NewEvent(type=EventType.DELTA, data={"text": "x"})])])
    bench.lose(turn_id)
    bench.try_claim(turn_id, "refused")
    bench.try_claim(behind, "refused")


def _the_sweep(bench: Bench) -> None:
    store = bench.store
    for swept in (False, True):
        store.elect("one", ttl=60, swept=swept)
        store.elect("two", ttl=60, swept=swept)
    store.resign("two")
    store.resign("one")
    for queues in (8, 8, 16):
        assert store.agree(queues) == 8
    bench.enqueue("swept")
    assert store.hasten() >= 1
    gone = bench.enqueue("gone")
    bench.lose(gone)
    for conversation in ("swept", "gone"):
        bench.overdue_now(conversation)
    assert "swept" in store.overdue()
    assert store.backlog().ready
    assert [w.conversation_id for w in store.redispatch(["swept", "gone"], {})] == ["swept"]
    bench.overdue_now("swept")
    store.redispatch(["swept"], dict.fromkeys(range(256), 0))


def _histories(bench: Bench) -> None:
    store = bench.store
    assert store.summarise(C, "text", generation=0, start=0, stop=1)
    assert not store.summarise(C, "other", generation=0, start=0, stop=2)
    store.reset(C)
    store.reset("never seen")


def _said(count: int) -> list[UserMessage]:
    return [UserMessage(content=f"message {number}") for number in range(count)]


def _open(bench: Bench, conversation: str, **more: Any) -> None:
    more = {"create": True, "operation": "open", "messages": _said(12), **more}
    bench.store.conversations.open(
        OpenConversation(conversation_id=conversation, tenant_id="acme", **more)
    )


def _read(bench: Bench, conversation: str, tenant: str = "acme", **more: Any) -> Any:
    reading = Reading(max_bytes=400, **more)
    bench.store.conversations.measure(conversation, tenant, reading)
    return bench.store.conversations.page(conversation, tenant, reading)


def _conversations(bench: Bench) -> None:
    store = bench.store.conversations
    _open(bench, "made", create=False)
    _open(bench, "made", user_id="ann", idle_time=60, metadata={"a": "b"})
    for operation in ("one", "two", "one"):
        _open(bench, "made", create=False, operation=operation, messages=_said(1))
    assert bench.store.summarise("made", "text", generation=0, start=0, stop=3)
    [first, *_] = _read(bench, "made").messages
    [last, *_] = _read(bench, "made", up=False).messages
    assert store.remove("made", "acme", first, "first")
    assert not store.remove("made", "acme", last, "last")
    assert not store.remove("made", "evil", last, "last")
    assert _read(bench, "made", "evil") is None
    assert store.find("made", "evil") is None


def _forks(bench: Bench) -> None:
    store, source = bench.store.conversations, "source"
    attached = Attachment(kind=AttachmentKind.IMAGE, blob="b" * 64, size=5, media_type="image/png")
    _open(
        bench, source, messages=[UserMessage(content="see", attachments=(attached,)), *_said(100)]
    )
    turn_id = bench.enqueue(source, tenant_id="acme")
    bench.complete(bench.claim(turn_id, source).lease)
    _open(bench, source, operation="more", messages=_said(100))
    step = Search(turn_id=turn_id, max_messages=1, max_bytes=1_000)
    found = store.seek(source, "acme", step)
    while isinstance(found, SearchOn):
        found = store.seek(source, "acme", replace(step, before=found.before))
    assert isinstance(found, Place)
    assert store.seek(source, "acme", replace(step, turn_id="none")) != found
    assert store.seek(source, "evil", step) is None
    assert not store.continue_from(source, turn_id, "op", take=True)
    fork = Fork(
        source=source,
        copy=beside(source),
        tenant_id="acme",
        user_id=None,
        place=found,
        idle_time=60,
        step_bytes=2_000,
    )
    copied: int | None = 0
    while copied is not None and copied <= found.position:
        copied = store.fork(fork, copied)
    assert bench.store.history(fork.copy) == bench.store.history(source)[:copied]
    assert store.fork(replace(fork, place=replace(found, digest="other")), 0) is None
    waiting = bench.enqueue(source, tenant_id="acme")
    for operation in ("op", "other"):
        store.continue_from(source, waiting, operation, take=False)
        store.continue_from(source, waiting, operation, take=True)
    assert store.continue_from(source, waiting, "op", take=True)


def _deletions(bench: Bench) -> None:
    store = bench.store.conversations
    assert store.drop("dropped", "acme", "none") is None
    _open(bench, "dropped", messages=_said(300))
    turns = [bench.enqueue("dropped", tenant_id="acme") for _ in range(3)]
    for turn_id in turns[:2]:
        bench.complete(bench.claim(turn_id, "dropped").lease)
    assert store.drop("dropped", "acme", "early") == Unended(turn_ids=turns[2:])
    assert store.forget("dropped", turns[2], "early") == Unended(turn_ids=turns[2:])
    bench.store.cancel(turns[2])
    assert store.relabel("dropped", turns[0], {"topic": "x"}, "relabel")
    assert isinstance(store.forget("dropped", turns[2], "op"), ForgottenTurn)
    assert store.forget("dropped", turns[2], "again") is None
    assert store.drop("dropped", "acme", "op", expected=1) is None
    dropped = store.drop("dropped", "acme", "op", expected=304)
    assert isinstance(dropped, Dropped)
    steps = [store.wipe(dropped, step) for step in ("one", "two")]
    assert [step.left for step in steps] == [105, 0]
    assert sum(len(step.turns) for step in steps) == 2


def _lists(bench: Bench) -> None:
    """A list removes entries whose records are gone."""
    lists = bench.store.lists
    bench.lose(bench.enqueue("to be lost"))
    bench.enqueue("to be forgotten")
    bench.forget("to be forgotten")
    assert len(lists.turns(TurnQuery(), 1000).items) > 10
    assert len(lists.conversations(ConversationQuery(), 1000).items) > 5
    assert lists.ends(FROM_START, 1000).ends
    [counted] = lists.counts([BEGAN - 1, 2 * BEGAN])
    assert counted.accepted > 10


def _hooks(bench: Bench) -> None:
    hooks, conversation = bench.store.hooks, "hooked"
    hooks.expect(["a"], 60)
    turns = [bench.enqueue(conversation) for _ in range(3)]
    for turn_id in turns:
        bench.store.commit(
            bench.claim(turn_id, conversation).lease, Ending(status=TurnStatus.FAILED)
        )
    bench.store.retry(turns[0], "operation")
    [partition] = hooks.untold()
    assert hooks.tell(partition, ["b"], call="none", seconds=60, most=10) == []
    [told, fails] = hooks.tell(partition, ["a"], call="both", seconds=60, most=10)
    hooks.hold([told, fails], 60)
    assert hooks.told(told, failed=False, call="told") is Telling.TOLD
    for number in range(MOST_FAILURES):
        telling = hooks.told(fails, failed=True, call=str(number))
    assert telling is Telling.GIVEN_UP


def test_every_transition_on_redis(redis_url: str) -> None:
    repeats = Repeats(set())
    bench = on_redis_twice(redis_url, repeats)
    walk(bench)
    archive_walk(bench)
    turns_walk(bench)
    store, keys = bench.store, conversation_keys("memory")
    assert isinstance(store, RedisTurnStore)
    where = [keys.messages, keys.meta, keys.inbox]
    said = [dumps(message) for message in completed("t").messages]
    for tenant in ("acme", "evil"):
        store._call("append", where, ["operation", "", tenant, 0, 0, *said])
        store._call("load", where[:2], [tenant, -1, -1])
    assert repeats.covered == set(SCRIPTS.names), "walk() must repeat each transition"
    store.close()


def test_every_transition_in_memory() -> None:
    repeats = Repeats(set())
    walk(in_memory_twice(repeats))
    methods = {
        name
        for protocol in (TurnStore, CallStore, ConversationStore, DataStore, HookStore)
        for name, _ in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods - READS == repeats.covered, "walk() must repeat each transition"


def repeated(machine: type[RuleBasedStateMachine], make_bench: Callable[[], Bench]) -> Any:
    """The machine, on a store whose every call is made twice."""
    return type("Repeated", (machine,), {"make_bench": staticmethod(make_bench)})


@pytest.mark.parametrize("machine", [TurnProtocol, Calls])
def test_every_call_at_every_point_in_memory(machine: type[RuleBasedStateMachine]) -> None:
    twice = repeated(machine, lambda: in_memory_twice(Repeats(set())))
    run_state_machine_as_test(twice, settings=EXAMPLES)


@pytest.mark.parametrize("machine", [TurnProtocol, Calls])
def test_every_call_at_every_point_on_redis(
    machine: type[RuleBasedStateMachine], redis_url: str
) -> None:
    twice = repeated(machine, lambda: on_redis_twice(redis_url, Repeats(set())))
    run_state_machine_as_test(twice, settings=EXAMPLES)
