"""Conversations and turns that move to the archive and back: turns, resets, deletions, deaths at
every step.

A plain list of messages is the model. Whatever happens, a conversation is as the model says,
wherever it is; and once leftovers are deleted, the archive holds what is away and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from agentapi.archive.protocol import Archive
from agentapi.archive.sql import SqlArchive
from agentapi.errors import TurnNotFound
from agentapi.ids import partition_of
from agentapi.redis.keys import conversation_keys, copies_key, turn_keys
from agentapi.stores import Accepted, RedisTurnStore, TurnQuery
from agentapi.stores.conversations import Dropped
from agentapi.stores.lists import TurnSummary
from agentapi.stores.redis import turn_archiving
from agentapi.stores.redis.archiving import RedisArchiving
from agentapi.stores.redis.part import RedisPart
from agentapi.turns import NewTurn, TurnStatus
from tests.conformance.stores import Bench, beside, on_redis
from tests.fakes.archive import MemoryArchive

EXAMPLES = settings(
    max_examples=int(os.environ.get("ARCHIVE_EXAMPLES", "20")),
    stateful_step_count=30,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

IDS = ("user:1", beside("user:1"), "tenant:ä:user:2")
CONVERSATIONS = st.sampled_from(IDS)
STEPS = st.integers(min_value=0, max_value=9)
TURN_STEPS = st.integers(min_value=0, max_value=5)
LIST_STEPS = st.integers(min_value=0, max_value=11)
LIMITS = st.sampled_from((1, 2, 1000))


class Died(Exception):
    """The process is gone."""


class Steps:
    """Does something at one step of a move: before or after a call to Redis or to the archive."""

    def __init__(
        self, archiving: RedisArchiving, archive: Archive, lists: Sequence[RedisPart]
    ) -> None:
        self.left = -1
        self.what: Callable[[], object] = lambda: None
        call: Any = archiving._call
        archiving._call = self._around(call)  # type: ignore[method-assign]
        turns: Any = archiving.turns
        for name in ("_call", "_each"):
            setattr(turns, name, self._around(getattr(turns, name)))
        for part in lists:
            each: Any = part._each
            part._each = self._around(each)  # type: ignore[method-assign]
        for name in (
            *("put", "get", "delete"),
            *("put_turns", "turns_of", "find_turns", "delete_turns"),
        ):
            setattr(archive, name, self._around(getattr(archive, name)))

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **more: Any) -> Any:
            self._step()
            answer = call(*args, **more)
            self._step()
            return answer

        return stepped

    def _step(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.what()

    def at(self, step: int, what: Callable[[], object]) -> None:
        self.left, self.what = step, what

    def off(self) -> None:
        self.left = -1


def die() -> None:
    raise Died


class Archived(RuleBasedStateMachine):
    """The machine. `make` gives a store with an archive."""

    make: Callable[[], tuple[Bench, Archive]]

    def __init__(self) -> None:
        super().__init__()
        self.bench, self.archive = self.make()
        store = self.bench.store
        assert isinstance(store, RedisTurnStore)
        assert store.archiving is not None
        self.store, self.archiving = store, store.archiving
        in_archive = store.lists._in_archive
        assert in_archive is not None
        self.steps = Steps(self.archiving, self.archive, [store.lists, in_archive])
        self.said: dict[str, list[str]] = {}
        self.turns: dict[str, list[tuple[str, str]]] = {}
        self.labels: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.waiting: dict[str, tuple[str, str]] = {}
        self.number = 0

    def _accept(self, conversation: str) -> None:
        if conversation not in self.waiting:
            self.number += 1
            said = f"say {self.number}"
            self.waiting[conversation] = self.bench.enqueue(conversation, said), said
            self.said.setdefault(conversation, [])

    def _run(self, conversation: str) -> None:
        turn_id, said = self.waiting.pop(conversation)
        claim = self.bench.claim(turn_id, conversation)
        assert [m.content for m in claim.history] == self.said[conversation]
        self.bench.complete(claim.lease, said, f"re: {said}")
        self.said[conversation] += [said, f"re: {said}"]
        self.turns.setdefault(conversation, []).append((turn_id, said))

    @rule(conversation=CONVERSATIONS)
    def a_turn_is_accepted(self, conversation: str) -> None:
        self._accept(conversation)

    @rule(conversation=CONVERSATIONS)
    def a_turn_runs(self, conversation: str) -> None:
        self._accept(conversation)
        self._run(conversation)

    @rule(conversation=CONVERSATIONS)
    def it_moves(self, conversation: str) -> None:
        moved = self.archiving.move(conversation)
        if moved:
            assert self.said[conversation]
            assert conversation not in self.waiting

    @rule(conversation=CONVERSATIONS, step=STEPS)
    def the_mover_dies(self, conversation: str, step: int) -> None:
        self._dies(step, lambda: self.archiving.move(conversation))

    @rule(conversation=CONVERSATIONS, step=STEPS, whole=st.booleans())
    def a_turn_comes_while_it_moves(self, conversation: str, step: int, whole: bool) -> None:
        def turn() -> None:
            self._accept(conversation)
            if whole:
                self._run(conversation)

        self.steps.at(step, turn)
        self.archiving.move(conversation)
        self.steps.off()

    @rule(conversation=CONVERSATIONS, step=STEPS)
    def leftovers_are_deleted_while_it_moves(self, conversation: str, step: int) -> None:
        self.steps.at(step, self.leftovers_are_deleted)
        self.archiving.move(conversation)
        self.steps.off()

    @rule(conversation=CONVERSATIONS, step=STEPS)
    def its_reader_dies(self, conversation: str, step: int) -> None:
        self._dies(step, lambda: self.store.history(conversation))

    @rule(conversation=CONVERSATIONS, step=STEPS)
    def two_bring_it_back(self, conversation: str, step: int) -> None:
        self.steps.at(step, lambda: self.store.history(conversation))
        self.it_is_read(conversation)
        self.steps.off()

    @rule(conversation=CONVERSATIONS)
    def it_is_read(self, conversation: str) -> None:
        history = [message.content for message in self.store.history(conversation)]
        assert history == self.said.get(conversation, [])

    @rule(conversation=CONVERSATIONS)
    def its_turns_are_read(self, conversation: str) -> None:
        for turn_id, said in self.turns.get(conversation, ()):
            turn = self.store.turn(turn_id)
            assert [m.content for m in turn.messages] == [said, f"re: {said}"]
            assert turn.metadata.get("label") == self.labels.get(turn_id)

    @rule()
    def turns_move(self) -> None:
        self._turns_move()

    def _turns_move_while(self, what: Callable[[], object], conversation: str, step: int) -> None:
        """With a turn that moves for certain."""
        self.a_turn_runs(conversation)
        [turn_id, _] = self.turns[conversation][-1]
        while self.store._client.exists(turn_keys(turn_id).events):
            pass
        self.steps.at(step, what)
        self._turns_move()
        self.steps.off()

    def _turns_move(self) -> None:
        self.archiving.turns.begin()
        self.archiving.turns.move_some(sorted({partition_of(name) for name in IDS}))

    @rule(conversation=CONVERSATIONS, step=TURN_STEPS)
    def the_mover_of_turns_dies(self, conversation: str, step: int) -> None:
        with contextlib.suppress(Died):
            self._turns_move_while(die, conversation, step)
        self.steps.off()

    @rule(conversation=CONVERSATIONS, step=TURN_STEPS)
    def turns_change_while_they_move(self, conversation: str, step: int) -> None:
        self._turns_move_while(lambda: self.turns_are_labelled(conversation), conversation, step)

    @rule(conversation=CONVERSATIONS, step=TURN_STEPS)
    def turns_are_deleted_while_they_move(self, conversation: str, step: int) -> None:
        self._turns_move_while(
            lambda: self.its_first_turn_is_deleted(conversation), conversation, step
        )

    @rule(conversation=CONVERSATIONS, step=TURN_STEPS)
    def two_move_them(self, conversation: str, step: int) -> None:
        self._turns_move_while(self._turns_move, conversation, step)

    @rule(conversation=CONVERSATIONS, step=TURN_STEPS)
    def leftovers_are_deleted_while_turns_move(self, conversation: str, step: int) -> None:
        self._turns_move_while(self.leftovers_are_deleted, conversation, step)

    @rule(conversation=CONVERSATIONS)
    def turns_are_labelled(self, conversation: str) -> None:
        for turn_id, _ in self.turns.get(conversation, ()):
            self.number += 1
            label = {"label": str(self.number)}
            conversations = self.store.conversations
            assert conversations.relabel(conversation, turn_id, label, uuid.uuid4().hex)
            self.labels[turn_id] = label["label"]

    @rule(conversation=CONVERSATIONS)
    def its_turns_are_repeated(self, conversation: str) -> None:
        for turn_id, said in self.turns.get(conversation, ()):
            new = NewTurn(turn_id=turn_id, conversation_id=conversation, agent="a", input=said)
            [answer] = self.store.enqueue([new])
            assert isinstance(answer, Accepted)
            assert not answer.created

    @rule(conversation=CONVERSATIONS)
    def its_first_turn_is_deleted(self, conversation: str) -> None:
        for turn_id, _ in self.turns.get(conversation, [])[:1]:
            conversations = self.store.conversations
            assert conversations.forget(conversation, turn_id, uuid.uuid4().hex) is not None
            self.deleted.add(turn_id)
        self.turns[conversation] = self.turns.get(conversation, [])[1:]

    @rule(conversation=CONVERSATIONS, step=STEPS)
    def a_reader_of_turns_dies(self, conversation: str, step: int) -> None:
        self._dies(step, lambda: self.its_turns_are_read(conversation))

    @rule(conversation=CONVERSATIONS, step=STEPS)
    def two_read_turns(self, conversation: str, step: int) -> None:
        self.steps.at(step, lambda: self.its_turns_are_read(conversation))
        self.its_turns_are_read(conversation)
        self.steps.off()

    @rule(conversation=CONVERSATIONS, step=LIST_STEPS, limit=LIMITS)
    def turns_move_while_they_are_listed(self, conversation: str, step: int, limit: int) -> None:
        self.steps.at(step, self._turns_move)
        self._is_listed(conversation, limit)
        self.steps.off()

    @rule(conversation=CONVERSATIONS, step=LIST_STEPS, limit=LIMITS)
    def turns_come_back_while_they_are_listed(
        self, conversation: str, step: int, limit: int
    ) -> None:
        self.steps.at(step, lambda: self.its_turns_are_read(conversation))
        self._is_listed(conversation, limit)
        self.steps.off()

    @invariant()
    def each_turn_is_listed_once(self) -> None:
        for conversation in IDS:
            self._is_listed(conversation, 1000)

    def _is_listed(self, conversation: str, limit: int) -> None:
        known = [turn_id for turn_id, _ in self.turns.get(conversation, ())]
        ended = TurnQuery(statuses=frozenset({TurnStatus.COMPLETED}), conversation_id=conversation)
        listed: list[TurnSummary] = []
        cursor: str | None = None
        while True:
            page = self.store.lists.turns(ended, limit, cursor)
            listed += page.items
            if (cursor := page.cursor) is None:
                break
        assert sorted(turn.turn_id for turn in listed) == sorted(known)
        times = [turn.created_at for turn in listed]
        assert times == sorted(times, reverse=True)

    @rule(conversation=CONVERSATIONS)
    def it_is_reset(self, conversation: str) -> None:
        assert self.store.reset(conversation) == len(self.said.get(conversation, []))
        if conversation in self.said:
            self.said[conversation] = []

    @rule(conversation=CONVERSATIONS)
    def it_is_deleted(self, conversation: str) -> None:
        if conversation in self.waiting:
            return
        dropped = self.store.conversations.drop(conversation, None, uuid.uuid4().hex)
        assert isinstance(dropped, Dropped) == (conversation in self.said)
        while isinstance(dropped, Dropped):
            if self.store.conversations.wipe(dropped, uuid.uuid4().hex).left == 0:
                break
        self.said.pop(conversation, None)
        self.deleted.update(turn_id for turn_id, _ in self.turns.pop(conversation, ()))

    @rule()
    def leftovers_are_deleted(self) -> None:
        """Long after: what was under way is over, or too late."""
        for partition in {partition_of(name) for name in IDS}:
            key = copies_key(partition)
            entries: Any = self.store._client.zrange(key, 0, -1)
            self.store._client.zadd(key, dict.fromkeys(entries, 0)) if entries else None
        self.archiving.discard(0)

    @rule(step=STEPS)
    def whoever_deletes_leftovers_dies(self, step: int) -> None:
        self._dies(step, self.leftovers_are_deleted)

    def _dies(self, step: int, work: Callable[[], object]) -> None:
        self.steps.at(step, die)
        with contextlib.suppress(Died):
            work()
        self.steps.off()

    @invariant()
    def wherever_it_is_it_is_whole(self) -> None:
        for conversation in IDS:
            snapshot = self.store.data.snapshot(conversation)
            assert (snapshot is not None) == (conversation in self.said)
            if snapshot is not None:
                assert snapshot.messages == len(self.said[conversation])

    def teardown(self) -> None:
        self.leftovers_are_deleted()
        away = {c: self.archiving.away(c) for c in IDS}
        rows = {(row.conversation_id, row.version) for row in self.archive.page()}
        assert rows == {(c, found.version) for c, found in away.items() if found is not None}
        known = {turn_id for turns in self.turns.values() for turn_id, _ in turns}
        copies = {turn.turn_id for turn in self.archive.turn_page()}
        assert copies == {turn_id for turn_id in known if self._left(turn_id)}
        for turn_id in self.deleted:
            with pytest.raises(TurnNotFound):
                self.store.turn(turn_id)
        for conversation in IDS:
            self.it_is_read(conversation)
            self.its_turns_are_read(conversation)
            keys = conversation_keys(conversation)
            staged: Any = self.store._client.keys(f"{keys.messages.replace('{', '[{]')}:import:*")
            assert all(self.store._client.pttl(key) > 0 for key in staged)
        self.store.close()

    def _left(self, turn_id: str) -> bool:
        return not self.store._client.exists(turn_keys(turn_id).turn)


def machine(url: str, archive: Callable[[], Archive]) -> type[Archived]:
    def make() -> tuple[Bench, Archive]:
        with redis.Redis.from_url(url) as client:
            client.flushall()
        # Every conversation that nobody uses right now is cold.
        times = {"archive_after": 1e-9, "archive_turns_after": 0.001, "events_retention": 0.001}
        bench, kept = on_redis(url, lease_ttl=3600, **times), archive()
        bench.store = RedisTurnStore(bench.settings, archive=kept)
        return bench, kept

    return type("OverThisArchive", (Archived,), {"make": staticmethod(make)})


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns that came back may move again."""
    monkeypatch.setattr(turn_archiving, "REST", 0)


def test_nothing_is_lost_or_doubled(redis_url: str) -> None:
    run_state_machine_as_test(machine(redis_url, MemoryArchive), settings=EXAMPLES)


def test_nothing_is_lost_or_doubled_in_sqlite(redis_url: str, tmp_path: Path) -> None:
    files = count()

    def archive() -> Archive:
        return prepared(f"sqlite:///{tmp_path / f'{next(files)}.db'}")

    few = settings(EXAMPLES, max_examples=EXAMPLES.max_examples // 5)
    run_state_machine_as_test(machine(redis_url, archive), settings=few)


def test_nothing_is_lost_or_doubled_in_postgresql(redis_url: str, postgres_url: str) -> None:
    def archive() -> Archive:
        kept = prepared(postgres_url)
        kept.delete_of()
        kept.delete_turns_of()
        return kept

    few = settings(EXAMPLES, max_examples=EXAMPLES.max_examples // 5)
    run_state_machine_as_test(machine(redis_url, archive), settings=few)


def prepared(url: str) -> Archive:
    archive = SqlArchive(url)
    archive.prepare()
    return archive
