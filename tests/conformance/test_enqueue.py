"""Accepting turns."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from agentapi.conversation.messages import (
    AssistantMessage,
    Attachment,
    AttachmentKind,
    ToolCall,
    ToolMessage,
)
from agentapi.errors import ConversationBusy, TenantMismatch, TurnNotFound
from agentapi.ids import create_turn_id
from agentapi.stores import Accepted, Wakeup
from agentapi.turns import (
    ClientTool,
    ClientTools,
    ForkOrigin,
    NewTurn,
    OnAbort,
    RequestedOutput,
    RequestOptions,
    Sampling,
    ToolChoice,
    TurnKind,
    TurnSpec,
    TurnStatus,
)
from agentapi.turns.budget import Limits
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C


def test_only_the_first_turn_of_a_conversation_is_woken(bench: Bench) -> None:
    ids = [create_turn_id(C) for _ in range(3)]
    turns = [NewTurn(turn_id=i, conversation_id=C, agent="a", input="hi") for i in ids]
    answers = bench.store.enqueue(turns)
    wakeup = Wakeup(conversation_id=C, turn_id=ids[0], agent="a")
    assert answers == [
        Accepted(turn_id=ids[0], wakeup=wakeup, created=True),
        Accepted(turn_id=ids[1], wakeup=None, created=True),
        Accepted(turn_id=ids[2], wakeup=None, created=True),
    ]


def test_a_repeat_is_the_first_turn_and_wakes_it_while_it_waits(bench: Bench) -> None:
    turn_id = create_turn_id(C, "key")
    new = NewTurn(turn_id=turn_id, conversation_id=C, agent="a", input="hi")
    bench.store.enqueue([new])
    other = NewTurn(turn_id=turn_id, conversation_id=C, agent="b", input="something else")
    [again] = bench.store.enqueue([other])
    wakeup = Wakeup(conversation_id=C, turn_id=turn_id, agent="a")
    assert again == Accepted(turn_id=turn_id, wakeup=wakeup, created=False)
    assert bench.store.turn(turn_id).input == "hi"
    lease = bench.claim(turn_id).lease
    assert bench.store.enqueue([new]) == [Accepted(turn_id=turn_id, wakeup=None, created=False)]
    bench.complete(lease)
    assert bench.store.enqueue([new]) == [Accepted(turn_id=turn_id, wakeup=None, created=False)]
    assert len(bench.store.history(C)) == 2


def test_a_full_inbox_refuses_and_says_so(make_bench: MakeBench) -> None:
    bench = make_bench(inbox_limit=2)
    first = bench.enqueue()
    bench.enqueue()
    with pytest.raises(ConversationBusy, match=r"2 turns.*AGENTAPI_INBOX_LIMIT"):
        bench.enqueue()
    bench.enqueue("user:2")
    bench.complete(bench.claim(first).lease)
    bench.enqueue()


def test_one_refusal_in_many_leaves_the_others_accepted(make_bench: MakeBench) -> None:
    bench = make_bench(inbox_limit=1)
    bench.enqueue("full")
    turns = [
        NewTurn(turn_id=create_turn_id(c), conversation_id=c, agent="a", input="hi")
        for c in ("free", "full", "also free")
    ]
    answers = bench.store.enqueue(turns)
    assert [type(answer) for answer in answers] == [Accepted, ConversationBusy, Accepted]


def test_a_conversation_belongs_to_its_tenant(bench: Bench) -> None:
    bench.enqueue(tenant_id="acme")
    bench.enqueue(tenant_id="acme")
    for other in (None, "evil"):
        with pytest.raises(TenantMismatch, match="another tenant"):
            bench.enqueue(tenant_id=other)
    bench.enqueue("user:2")
    with pytest.raises(TenantMismatch):
        bench.enqueue("user:2", tenant_id="acme")


def test_a_turn_keeps_what_it_was_given(bench: Bench) -> None:
    turn_id = bench.enqueue(
        "tenant:acme:user:é",
        "héllo",
        user_id="u",
        tenant_id="acme",
        metadata={"a": [1, {"b": None}]},
        stream=True,
    )
    turn = bench.store.turn(turn_id)
    assert turn.turn_id == turn_id
    assert (turn.conversation_id, turn.agent, turn.input) == ("tenant:acme:user:é", "a", "héllo")
    assert (turn.user_id, turn.tenant_id, turn.stream) == ("u", "acme", True)
    assert turn.metadata == {"a": [1, {"b": None}]}
    assert (turn.status, turn.attempt, turn.worker) == (TurnStatus.QUEUED, 0, None)
    assert turn.created_at > 1e9
    assert turn.started_at is None


def test_an_unknown_turn_is_said_to_be_unknown(bench: Bench) -> None:
    with pytest.raises(TurnNotFound, match="never accepted"):
        bench.store.turn(create_turn_id(C))
    with pytest.raises(TurnNotFound):
        bench.store.cancel(create_turn_id(C))


def test_everything_that_a_turn_is_to_do_is_stored(bench: Bench) -> None:
    parent = bench.enqueue("parent")
    spec: dict[str, Any] = {
        "turn_id": create_turn_id(C),
        "conversation_id": C,
        "agent": "helper",
        "input": "grüß dich",
        "kind": TurnKind.GATHER,
        "user_id": "ann",
        "tenant_id": "acme",
        "metadata": {"a": [1, None, "x"]},
        "stream": True,
        "on_abort": OnAbort.KEEP,
        "on_failure": OnAbort.DROP,
        "deadline_at": 4_000_000_000.5,
        "parent_id": parent,
        "depth": 2,
        "budget": Limits(steps=3, cost=0.5),
        "client_tools": ClientTools(
            tools=(ClientTool(name="paint", parameters={"type": "object"}, strict=True),),
            choice=ToolChoice.REQUIRED,
            only=("paint",),
            parallel=False,
            timeout=60.0,
            since=1,
        ),
        "prior": (
            AssistantMessage(
                content="", tool_calls=(ToolCall(id="c", name="paint", arguments={}, client=True),)
            ),
            ToolMessage(call_id="c", name="paint", content="done"),
        ),
        "context": {"plan": "free", "tags": ["a"], "shop": {"open": True}},
        "attachments": (Attachment(kind=AttachmentKind.FILE, url="https://example.org/a.pdf"),),
        "options": RequestOptions(
            instructions="Be brief.",
            replace=True,
            sampling=Sampling(temperature=0.5, stop=("a", "b"), logit_bias={"7": -1.0}),
            output=RequestedOutput(name="answer", schema={"type": "object"}, strict=True),
            store=False,
            bare=True,
            decided=True,
        ),
        "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 vendor=1",
        "forked_from": ForkOrigin(turn_id=parent, step=2, by="kim"),
    }
    assert set(spec) == {field.name for field in fields(TurnSpec)}, "a new field belongs here"
    bench.store.enqueue([NewTurn(**spec)])
    turn = bench.store.turn(spec["turn_id"])
    assert {name: getattr(turn, name) for name in spec} == spec
    assert bench.claim(turn.turn_id).turn.kind is TurnKind.GATHER
