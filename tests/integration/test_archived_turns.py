"""Turns in the archive, as those see them who read, list, repeat, change and delete them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agentapi import Settings, load_settings
from agentapi.archive.protocol import Archive
from agentapi.errors import (
    ArchiveLost,
    ArchiveUnavailable,
    CallNotPending,
    TurnNotFound,
    TurnNotRetryable,
)
from agentapi.ids import create_turn_id, partition_of, partition_of_turn
from agentapi.redis.keys import copies_key, list_keys, turn_keys
from agentapi.stores import Accepted, RedisTurnStore, TurnQuery
from agentapi.stores.answers import CancelOutcome
from agentapi.stores.conversations import Dropped
from agentapi.stores.data import Whose
from agentapi.stores.redis import turn_archiving
from agentapi.stores.redis.turn_archiving import RedisTurnArchiving, moved_keys
from agentapi.supervision import Supervisor
from agentapi.turns import Decision, NewTurn, OnBusy, Turn, TurnStatus, Verdict
from agentapi.turns.request_options import RequestOptions
from orchestrator.data.forgetting import Forgetting, count_user
from tests.conformance.stores import Bench, C, beside, on_redis
from tests.fakes.archive import MemoryArchive
from tests.faults import until
from workers.outage import Outage
from workers.upkeep import archivist

SHORT: dict[str, Any] = {"archive_turns_after": 0.001, "events_retention": 0.001}


@dataclass
class World:
    bench: Bench
    store: RedisTurnStore
    turns: RedisTurnArchiving
    archive: Archive

    def says(self, conversation: str = C, message: str = "hi", **more: Any) -> str:
        turn_id = self.bench.enqueue(conversation, message, **more)
        self.bench.complete(self.bench.claim(turn_id, conversation).lease, message)
        return turn_id

    def move(self, *turn_ids: str) -> None:
        """Let turns move; each must, at once or a little later."""

        def gone() -> bool:
            self.turns.begin()
            self.turns.move_some()
            return all(map(self.away, turn_ids))

        until(gone, what="the move")

    def stays(self, *turn_ids: str) -> None:
        """Others of the same partition move, and these do not."""
        self.move(*(self.says(beside(C)) for _ in turn_ids))
        assert not any(map(self.away, turn_ids))

    def away(self, turn_id: str) -> bool:
        pipeline = self.store._client.pipeline(transaction=True)
        pipeline.exists(turn_keys(turn_id).turn)
        for key in moved_keys(partition_of_turn(turn_id)):
            pipeline.zscore(key, turn_id)
        here, *scores = pipeline.execute()
        marked = any(score is not None for score in scores)
        assert bool(here) != marked, "a turn is in one of both places"
        return marked

    def rows(self) -> int:
        return len(self.archive.turn_page())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns that came back may move again."""
    monkeypatch.setattr(turn_archiving, "REST", 0)


def world_of(settings: Settings, archive: Archive | None = None) -> World:
    store = RedisTurnStore(settings, archive=archive)
    bench = on_redis(settings.redis_url)
    bench.store.close()
    bench.store, bench.settings = store, settings
    assert store.archiving is not None
    return World(bench, store, store.archiving.turns, store.archiving.archive)


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[World]:
    """A store whose turns move as soon as they have ended."""
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    made = world_of(load_settings(redis_url=redis_url, archive_url=url, **SHORT))
    made.turns._archive.ready()
    yield made
    made.store.close()


@pytest.fixture
def quick(redis_url: str) -> Iterator[World]:
    """The same with an archive in memory."""
    made = world_of(load_settings(redis_url=redis_url, **SHORT), MemoryArchive())
    yield made
    made.store.close()


def test_a_turn_is_read_as_before(world: World) -> None:
    store = world.store
    given: dict[str, Any] = {"user_id": "ann", "tenant_id": "acme", "metadata": {"a": "ä"}}
    said = world.says(message="say ü", **given)
    cancelled = world.bench.enqueue(message="never", **given)
    store.cancel(cancelled)
    before = [(store.turn(each), store.past(each)) for each in (said, cancelled)]
    world.move(said, cancelled)
    for turn_id in (said, cancelled):
        assert list(store._client.scan_iter(f"*{turn_id}*")) == []
    for (turn, past), turn_id in zip(before, (said, cancelled), strict=True):
        assert store.turn(turn_id) == turn
        now = store.past(turn_id)
        assert (now.turn, now.marks, now.steps, now.place) == (
            *(past.turn, past.marks, past.steps, past.place),
        )
    assert store.turn(said).text == "yo"
    # Whoever reads it gets it back for a while.
    assert not world.away(said)
    assert store._client.pttl(turn_keys(said).turn) > 0
    world.move(said, cancelled)
    assert store.turn(said) == before[0][0]
    assert world.store.archiving is not None
    world.store.archiving.discard(0)
    world.move(said)
    assert store.turn(said) == before[0][0]


def test_lists_and_counts_are_as_before(world: World) -> None:
    lists = world.store.lists
    for number in range(7):
        world.says(f"c{number}", user_id=f"u{number % 2}", tenant_id="acme")
    late = world.bench.enqueue("c0", user_id="u0", tenant_id="acme")
    world.store.cancel(late)
    waits = world.bench.enqueue("c9", user_id="u0", tenant_id="acme")
    queries = [
        TurnQuery(),
        TurnQuery(user_id="u1", tenant_id="acme", agent="a"),
        TurnQuery(conversation_id="c0", tenant_id="acme"),
        TurnQuery(statuses=frozenset({TurnStatus.CANCELLED})),
        TurnQuery(statuses=frozenset({TurnStatus.COMPLETED}), tenant_id="evil"),
        TurnQuery(error_code="poison"),
    ]

    def seen() -> list[Any]:
        found: list[Any] = []
        for query in queries:
            cursor: str | None = None
            pages: list[Any] = []
            while page := lists.turns(query, 3, cursor):
                pages += page.items
                if (cursor := page.cursor) is None:
                    break
            found.append(pages)
        now = world.store._client.time()[0]
        return [found, lists.counts([now - 60, now + 60])]

    before = seen()
    assert [len(turns) for turns in before[0]] == [9, 3, 2, 1, 0, 0]
    ended = [turn.turn_id for turn in before[0][0] if turn.turn_id != waits]
    world.move(*ended)
    assert seen() == before
    assert all(map(world.away, ended))
    # Some are back, and none is listed twice.
    for turn_id in ended[::2]:
        world.store.turn(turn_id)
    assert seen() == before


def test_a_repeat_finds_its_turn(quick: World) -> None:
    first = quick.says(turn_id=create_turn_id(C, "key"))
    other = quick.says("other", turn_id=create_turn_id("other", "key"))
    quick.move(first, other)
    new = [
        NewTurn(turn_id=turn_id, conversation_id=conversation, agent="a", input="hi")
        for turn_id, conversation in (
            (first, C),
            (create_turn_id("third"), "third"),
            (other, "other"),
        )
    ]
    answers = quick.store.enqueue(new)
    assert [a.created for a in answers if isinstance(a, Accepted)] == [False, True, False]
    quick.move(first)
    [alone] = quick.store.enqueue(new[:1])
    assert isinstance(alone, Accepted)
    assert (alone.created, alone.turn_id, alone.wakeup) == (False, first, None)
    assert quick.store.turn(first).text == "yo"


def test_ended_turns_stay_ended(quick: World) -> None:
    turn_id = quick.says()
    store, decision = quick.store, Decision(verdict=Verdict.APPROVED)
    calls: list[Callable[[], object]] = [
        lambda: store.retry(turn_id, "op"),
        lambda: store.calls.decide(turn_id, "call", decision),
    ]
    for call in calls:
        errors = []
        for _ in range(2):
            with pytest.raises((TurnNotRetryable, CallNotPending)) as raised:
                call()
            errors.append(str(raised.value))
            quick.move(turn_id)
        assert errors[0] == errors[1]
    assert store.cancel(turn_id).outcome is CancelOutcome.ENDED
    quick.move(turn_id)
    assert store.calls.pending(turn_id) == []
    quick.move(turn_id)
    assert store.conversations.continue_from(C, turn_id, "op", take=True)
    quick.move(turn_id)
    assert store.conversations.continue_from(C, turn_id, "op", take=True)
    assert not store.conversations.continue_from(C, turn_id, "other", take=True)


def test_a_message_that_joined_it_finds_it(quick: World) -> None:
    first = quick.bench.enqueue()
    waits = quick.bench.enqueue()
    joined = quick.bench.enqueue(message="more", on_busy=OnBusy.MERGE)
    for turn_id in (first, waits):
        quick.bench.complete(quick.bench.claim(turn_id).lease)
    quick.move(first, waits)
    assert quick.store.turn(joined).turn_id == waits
    quick.move(waits)
    assert quick.store.cancel(joined).outcome is CancelOutcome.ENDED
    quick.move(waits)
    assert quick.store.calls.pending(joined) == []


def test_a_change_stays(quick: World) -> None:
    turn_id = quick.says()
    quick.move(turn_id)
    assert not quick.store.conversations.relabel("other", turn_id, {"a": "b"}, "no")
    quick.move(turn_id)
    assert quick.store.conversations.relabel(C, turn_id, {"a": "b"}, "op")
    quick.move(turn_id)
    assert quick.store.turn(turn_id).metadata == {"a": "b"}


def test_one_turn_is_deleted(world: World) -> None:
    kept, gone = world.says(), world.says()
    world.move(kept, gone)
    forgotten = world.store.conversations.forget(C, gone, "op")
    assert world.store.conversations.forget(C, gone, "op") == forgotten
    assert forgotten is not None
    with pytest.raises(TurnNotFound):
        world.store.turn(gone)
    world.move(kept)
    assert world.store.archiving is not None
    world.store.archiving.discard(0)
    assert [turn.turn_id for turn in world.archive.turn_page()] == [kept]


def test_turns_go_with_their_conversation(world: World) -> None:
    theirs = [world.says(message="x" * number) for number in range(1, 4)]
    cancelled = world.bench.enqueue()
    world.store.cancel(cancelled)
    other = world.says(beside(C))
    world.move(*theirs, cancelled, other)
    dropped = world.store.conversations.drop(C, None, "op")
    assert isinstance(dropped, Dropped)
    sizes: list[Any] = []
    while (wiped := world.store.conversations.wipe(dropped, uuid.uuid4().hex)).left:
        sizes += wiped.turns
    sizes += wiped.turns
    assert len(sizes) == 4
    assert sorted(turn.input_bytes for turn in sizes) == [1, 2, 2, 3]
    for turn_id in (*theirs, cancelled):
        with pytest.raises(TurnNotFound):
            world.store.turn(turn_id)
    assert world.away(other)
    assert world.store.archiving is not None
    world.store.archiving.discard(0)
    assert [turn.turn_id for turn in world.archive.turn_page()] == [other]


def test_a_person_is_forgotten(world: World) -> None:
    theirs = [world.says("ann:1", user_id="ann"), world.says("shared", user_id="bob")]
    in_others = world.says("shared", "secret", user_id="ann")
    world.move(*theirs, in_others)
    whose = Whose(user_id="ann")
    counted = count_user(world.store, whose)
    assert (counted.conversations, counted.turns, counted.messages) == (1, 2, 4)
    world.move(*theirs, in_others)
    forgotten = Forgetting(world.store, whose, world.store.cancel, 1).run()
    assert (forgotten.conversations, forgotten.turns, forgotten.messages) == (1, 2, 4)
    assert [turn.user_id for turn in world.archive.turn_page()] == ["bob"]
    assert not list(world.store.data.turns(whose))
    assert [m.content for m in world.store.history("shared")] == ["hi", "yo"]


def test_what_somebody_may_still_need_stays(quick: World) -> None:
    bench, store = quick.bench, quick.store
    parent = bench.enqueue("parent")
    bench.claim(parent, "parent")
    child = quick.says(parent_id=parent, depth=1)
    unstored = quick.says(options=RequestOptions(store=False))
    follows = quick.says()
    store._client.delete(turn_keys(follows).events)
    store._client.xadd(turn_keys(follows).events, {"type": "x", "data": "{}"}, "99-0")
    journal = quick.says()
    store._client.rpush(turn_keys(journal).journal, "step")
    long_ago = quick.says()
    store._client.hset(turn_keys(long_ago).turn, "created", 1)
    unreadable = quick.says()
    store._client.hset(turn_keys(unreadable).turn, "v", 99)
    running = bench.enqueue()
    bench.claim(running)
    for turn_id in (child, follows, journal, long_ago, unreadable, running):
        quick.stays(turn_id)
    assert store._client.exists(turn_keys(unstored).turn) == 1
    # Nobody waits for it any more.
    store._client.hset(turn_keys(parent).turn, "status", "completed")
    quick.move(child)
    assert store.turn(child).parent_id == parent


def test_an_end_that_a_hook_waits_for_stays(quick: World) -> None:
    quick.store.hooks.expect(["a"], 60)
    turn_id, hooks = quick.says(), quick.store.hooks
    for _ in range(2):
        assert quick.turns.move_some() == (0, False)
    [end] = hooks.tell(partition_of(C), ["a"], call="tell", seconds=60, most=9)
    assert quick.turns.move_some() == (0, False)
    hooks.told(end, failed=False, call="told")
    quick.move(turn_id)


def test_it_is_kept_no_longer_than_before(redis_url: str) -> None:
    archive = MemoryArchive()
    quick = world_of(load_settings(redis_url=redis_url, turn_retention=100, **SHORT), archive)
    turn_id = quick.says()
    quick.move(turn_id)
    [(key, copy)] = archive.turns.items()
    assert copy.expires - copy.ended in range(99_900, 100_001)
    assert quick.turns.expire() == 0
    # Its retention ends.
    archive.turns[key] = replace(copy, expires=copy.ended)
    quick.store._client.zadd(moved_keys(partition_of(C))[0], {turn_id: copy.ended - 100_000})
    until(lambda: quick.turns.expire() == 1, what="the end of its retention")
    with pytest.raises(TurnNotFound):
        quick.store.turn(turn_id)
    quick.store.close()


def test_more_than_the_limit_are_deleted(redis_url: str) -> None:
    archive = MemoryArchive()
    # Its producers must not delete turns that are to move.
    roomy = world_of(load_settings(redis_url=redis_url, **SHORT), archive)
    names = {roomy.says(name, idle_time=60): name for name in (C, *_beside(3))}
    roomy.move(*names)
    roomy.store.close()
    settings = load_settings(redis_url=redis_url, turn_limit=256 * 2, list_limit=256, **SHORT)
    quick = world_of(settings, archive)
    *kept, third, fourth = (t.turn_id for t in quick.store.lists.turns(TurnQuery(), 9).items)
    assert quick.turns.expel() == 2
    assert [t.turn_id for t in quick.store.lists.turns(TurnQuery(), 9).items] == kept
    assert quick.turns.expel() == 0
    for turn_id in (third, fourth):
        assert quick.store.conversations.find(names[turn_id], None) is None
        assert quick.store.history(names[turn_id]) == []
        with pytest.raises(TurnNotFound):
            quick.store.turn(turn_id)
    assert quick.store.archiving is not None
    quick.store.archiving.discard(0)
    assert quick.rows() == 2
    quick.store.close()


def _beside(count: int) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        names.append(beside(names[-1] if names else C))
    return names


def test_only_what_is_there_is_asked_for(quick: World, redis_url: str) -> None:
    asked: list[str] = []
    turn_id = quick.says()
    quick.move(turn_id)
    assert isinstance(quick.archive, MemoryArchive)
    quick.archive.before = asked.append
    with pytest.raises(TurnNotFound):
        quick.store.turn(create_turn_id(C))
    quick.says()
    assert asked == []
    other = RedisTurnStore(load_settings(redis_url=redis_url))
    for call in (other.turn, other.cancel, lambda _: other.lists.turns(TurnQuery(), 9)):
        with pytest.raises(ArchiveUnavailable, match="AGENTAPI_ARCHIVE_URL"):
            call(turn_id)
    other.close()


def test_a_row_that_is_missing_is_no_turn_that_never_was(quick: World) -> None:
    turn_id = quick.says()
    quick.move(turn_id)
    assert isinstance(quick.archive, MemoryArchive)
    rows = dict(quick.archive.turns)
    quick.archive.turns.clear()
    with pytest.raises(ArchiveLost):
        quick.store.turn(turn_id)
    with pytest.raises(ArchiveLost):
        quick.bench.enqueue(turn_id=turn_id)
    # The operator restores a backup.
    quick.archive.turns.update(rows)
    assert quick.store.turn(turn_id).text == "yo"
    quick.move(turn_id)
    quick.archive.turns.clear()
    dropped = quick.store.conversations.drop(C, None, "op")
    assert isinstance(dropped, Dropped)
    assert quick.store.conversations.wipe(dropped, "step").left == 0
    with pytest.raises(TurnNotFound):
        quick.store.turn(turn_id)


def test_many_move_together(quick: World) -> None:
    turn_ids = [quick.says() for _ in range(70)]
    [moved] = [key for key in moved_keys(partition_of(C)) if key.endswith("completed")]
    quick.move(*turn_ids)
    assert quick.store._client.zcard(moved) == 70
    assert quick.store._client.zcard(list_keys(partition_of(C), ["completed"])[0]) == 0
    assert quick.store._client.zcard(copies_key(partition_of(C))) == 0


def test_the_worker_that_sweeps_moves_them(quick: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STEP", "TURNS_REST", "AWAY_REST"):
        monkeypatch.setattr(archivist, name, 0.01)
    turn_ids = [quick.says(f"user:{number}") for number in range(5)]
    assert isinstance(quick.archive, MemoryArchive)
    elected: list[bool] = []
    failures = ["put_turns"]

    def away(name: str) -> None:
        if name in failures:
            failures.remove(name)
            raise ArchiveUnavailable("away")

    quick.archive.before = away
    assert quick.store.archiving is not None
    thread = archivist.TurnArchivist(
        quick.bench.settings,
        quick.store.archiving,
        Outage(),
        lambda: bool(elected),
        supervisor=Supervisor(fatal=None),
    )
    thread.start()
    try:
        assert not any(map(quick.away, turn_ids))
        elected.append(True)
        until(lambda: all(map(quick.away, turn_ids)), what="the moves")
    finally:
        thread.stop()
    assert failures == []
    assert [quick.store.turn(turn_id).text for turn_id in turn_ids] == ["yo"] * 5


def test_it_moves_out_of_a_cluster_and_back(cluster_url: str) -> None:
    bench = on_redis(cluster_url, **SHORT)
    bench.store.close()
    bench.store = store = RedisTurnStore(bench.settings, archive=MemoryArchive())
    assert store.archiving is not None
    world = World(bench, store, store.archiving.turns, store.archiving.archive)
    before: list[Turn] = []
    for number in range(12):
        turn_id = world.says(f"user:{number}", user_id="ann")
        before.append(store.turn(turn_id))
    world.move(*(turn.turn_id for turn in before))
    assert len(store.lists.turns(TurnQuery(), 20).items) == 12
    again = [
        NewTurn(turn_id=t.turn_id, conversation_id=t.conversation_id, agent="a", input="hi")
        for t in before
    ]
    assert not any(a.created for a in store.enqueue(again) if isinstance(a, Accepted))
    world.move(*(turn.turn_id for turn in before))
    assert [store.turn(turn.turn_id) for turn in before] == before
    assert store.archiving.discard(0) == 24
    store.close()
