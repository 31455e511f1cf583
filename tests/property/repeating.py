"""Stores whose every call is made twice, as when its answer was lost: same state, same answer.

Time stands still within a call, so that what is compared is what the call does.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.resources import files
from typing import Any, Final, cast

import redis

from agentapi import load_settings
from agentapi.memory.in_memory import InMemoryMemory
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.redis.scripts import Call, ScriptRun, Scripts, ScriptSet
from agentapi.stores import Accepted, InMemoryTurnStore, RedisTurnStore, TurnStore
from agentapi.stores.redis.scripts import SCRIPTS
from tests.clock import on_clock, set_clock
from tests.conformance.stores import Bench

BEGAN: Final = 1_800_000_000.0
"""Seconds; the time at which the clocks of these stores start."""

READS: Final = frozenset(
    {"backlog", "blobs", "check_protocol", "children", "claimed", "close", "events", "find"}
    | {"conversations", "raw", "reading", "remains", "require_archive", "snapshot", "turns"}
    | {"history", "interrupt", "measure", "page", "past", "pending", "ping", "seek", "since_sweep"}
    | {"hear_cancel", "set_aside", "slice", "steps", "summary", "tell_cancel", "turn", "untold"}
)
"""Methods that change nothing, or only what the process itself keeps."""

NAMED_INSIDE: Final = frozenset({"redispatch", "reset"})
"""Methods that name their operation themselves: called again in one process, they are another
operation. In Redis their scripts are repeated."""

COUNTS: Final = frozenset(
    {"erase_copies", "erase_ends", "expel_turns", "hasten", "list", "pack_turns", "rouse"}
)
"""They answer with what this very call found to do, how many entries it looked at, or how long a
key is kept from now on."""


class Clock:
    """Stands still but for what a test adds; every call of a store takes a millisecond."""

    def __init__(self, client: redis.Redis | None = None) -> None:
        """Make one.

        Args:
            client: The Redis whose scripts read it, if any do.
        """
        self.now = BEGAN
        self._client = client
        self.tick(0)

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float = 0.001) -> None:
        self.now += seconds
        if self._client is not None:
            set_clock(self._client, round(self.now * 1_000_000))


@dataclass
class Repeats:
    """What was repeated.

    Attributes:
        covered: Names of scripts or methods.
        answers: Scripts' answers that begin with a word: (script, word).
        exceptions: Names of scripts that count each call, so that nothing can be compared.
    """

    covered: set[str]
    answers: set[tuple[str, str]] = field(default_factory=set)
    exceptions: frozenset[str] = frozenset()

    def compare(self, name: str, call: Callable[[], Any], state: Callable[[], Any]) -> Any:
        """Make a call twice."""
        self.covered.add(name)
        first = _outcome(call)
        between = state()
        again = _outcome(call)
        if name in self.exceptions:
            return _unwrapped(first)
        assert state() == between, f"{name}, repeated, changed the state"
        if name not in COUNTS:
            same = _same_turns if name == "read" else _same
            assert same(again) == same(first), f"{name}, repeated, answers otherwise"
        return _unwrapped(first)


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def _unwrapped(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _same(outcome: Any) -> Any:
    """An answer without what is about the call itself: whether *this* one made the turn."""
    match outcome:
        case Exception():
            return (type(outcome), str(outcome))
        case Accepted():
            return (outcome.turn_id, outcome.wakeup)
        case [b"accepted", *more]:
            return [b"known", *more]
        case [b"claimed", *more]:
            # Last why, how long the turn had waited, and who had it before: for metrics and traces,
            # which count a claim once.
            assert more[-6::2] == [b"cause", b"waited", b"lost"]
            return [b"claimed", *more[:-6]]
        case list():
            return [_same(each) for each in outcome]
        case _:
            return outcome


def _same_turns(outcome: Any) -> Any:
    """Answers with all fields of a hash: while Redis resizes it, their order changes."""
    if isinstance(outcome, Exception):
        return _same(outcome)
    return [
        (turn_id, sorted(zip(fields[::2], fields[1::2], strict=True), key=repr))
        for turn_id, fields in outcome
    ]


class RepeatingScripts:
    """Runs every script twice, on Redis's data but by the test's clock. Stands in for the
    `Scripts` of any package."""

    def __init__(
        self,
        client: redis.Redis,
        scripts: ScriptSet,
        repeats: Repeats,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Make them.

        Args:
            client: Where they run.
            scripts: Which scripts.
            repeats: Compares.
            tick: Called before each call.
        """
        self._client = client
        self._repeats = repeats
        self._tick = tick
        self._scripts = {
            name: client.register_script(on_clock(scripts.source(name))) for name in scripts.names
        }

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return self.call_many(name, [(keys, args)])[0]

    def run(self, run: ScriptRun[Any]) -> Any:
        return run.read(self.call(run.name, run.keys, run.args))

    on_cluster = False

    def call_each(
        self, name: str, calls: Sequence[Call], *, patience: float | None = None
    ) -> list[Any]:
        return self.call_many(name, calls)

    def call_many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        self._tick()

        def run() -> list[Any]:
            pipeline = self._client.pipeline(transaction=False)
            for keys, args in calls:
                self._scripts[name](keys=keys, args=args, client=pipeline)
            return pipeline.execute()

        found = self._repeats.compare(name, run, lambda: dump(self._client))
        for answer in found:
            match answer:
                case [bytes(word), *_] if word.isalpha():
                    self._repeats.answers.add((name, word.decode()))
        return cast("list[Any]", found)


def answers_of(scripts: ScriptSet, names: Iterable[str] = ()) -> set[tuple[str, str]]:
    """The answers that the headers of scripts name; those of all scripts if none are given."""
    found = set()
    for name in names or scripts.names:
        text = (files(scripts.package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
        returns = text.partition("-- Returns ")[2].partition("-- Promise")[0]
        found |= {(name, word) for word in re.findall(r"\{'(\w+)'", returns)}
    return found


class AsyncRepeatingScripts:
    """The same for callers on an event loop, which stands still meanwhile."""

    def __init__(self, scripts: RepeatingScripts) -> None:
        self._scripts = scripts

    async def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return self._scripts.call(name, keys, args)

    async def run(self, run: ScriptRun[Any]) -> Any:
        return self._scripts.run(run)


def dump(client: redis.Redis) -> dict[bytes, Any]:
    """All that is in Redis, and what of it expires."""
    keys = sorted(cast("list[bytes]", client.keys("agentapi:*")))
    asked = client.pipeline(transaction=False)
    for key in keys:
        asked.type(key)
        asked.ttl(key)
    answers = asked.execute()
    kinds, ttls = answers[::2], answers[1::2]
    read = client.pipeline(transaction=False)
    for key, kind in zip(keys, kinds, strict=True):
        match kind:
            case b"hash":
                read.hgetall(key)
            case b"list":
                read.lrange(key, 0, -1)
            case b"set":
                read.smembers(key)
            case b"zset":
                read.zrange(key, 0, -1, withscores=True)
            case b"stream":
                read.xrange(key)
            case _:
                read.get(key)
    # Redis has its own clock: what lasts a minute would be gone before a busy machine is done.
    longer = client.pipeline(transaction=False)
    for key, ttl in zip(keys, ttls, strict=True):
        if 0 <= ttl < 600:
            longer.expire(key, 3600)
    longer.execute()
    expires = [ttl != -1 for ttl in ttls]
    return dict(zip(keys, zip(read.execute(), expires, strict=True), strict=True))


class RepeatingStore:
    """Makes every call of an in-memory store twice."""

    def __init__(self, store: Any, state: Any, clock: Clock, repeats: Repeats) -> None:
        self._store = store
        self._state = state
        self._clock = clock
        self._repeats = repeats
        if isinstance(store, InMemoryTurnStore):
            self.lists = store.lists
            self.hooks = RepeatingStore(store.hooks, state, clock, repeats)
            self.calls = RepeatingStore(store.calls, state, clock, repeats)
            self.data = RepeatingStore(store.data, state, clock, repeats)
            self.conversations = RepeatingStore(store.conversations, state, clock, repeats)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name in READS or name.startswith("_"):
            return method

        def twice(*args: Any, **more: Any) -> Any:
            self._clock.tick()
            if name in NAMED_INSIDE:
                self._repeats.covered.add(name)
                return method(*args, **more)
            # What is given to the first call must not be what it keeps.
            given = copy.deepcopy((args, more))
            return self._repeats.compare(
                name,
                lambda: method(*given[0], **given[1]),
                lambda: _plain(vars(self._state)),
            )

        return twice


def _plain(value: Any) -> Any:
    """A copy of a store's state that can be compared."""
    match value:
        case InMemoryMemory():
            return _plain(
                {k: v for k, v in vars(value).items() if k in ("_messages", "_blobs", "tenant_id")}
            )
        case Mapping():
            return {key: _plain(each) for key, each in value.items() if key not in _NO_STATE}
        case list() | tuple() | set():
            return [_plain(each) for each in (sorted(value) if isinstance(value, set) else value)]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
        case _:
            return value


_NO_STATE: Final = frozenset({"changed", "now", "settings"})


def in_memory_twice(repeats: Repeats, **overrides: Any) -> Bench:
    """The in-memory store, every call of it made twice."""
    settings, clock = load_settings(**overrides), Clock()
    store = InMemoryTurnStore(settings, clock)
    state = store._state
    twice = cast("TurnStore", RepeatingStore(store, state, clock, repeats))

    def expire(conversation_id: str) -> None:
        lease = state.conversations[conversation_id].lease
        assert lease is not None
        lease.expires = 0

    def overdue(conversation_id: str, since: float = 0.001) -> None:
        state.conversations[conversation_id].due = clock.now - since

    def has_due(conversation_id: str) -> bool:
        conversation = state.conversations.get(conversation_id)
        return conversation is not None and conversation.due is not None

    def lose(turn_id: str) -> None:
        del state.turns[turn_id]

    def forget(conversation_id: str) -> None:
        del state.conversations[conversation_id]

    return Bench(twice, settings, expire, overdue, has_due, lose, forget)


def on_redis_twice(
    url: str, repeats: Repeats, clock: Clock | None = None, **overrides: Any
) -> Bench:
    """The store on an emptied Redis, every script of it run twice."""
    settings = load_settings(redis_url=url, **overrides)
    client = redis.Redis.from_url(url)
    client.flushall()
    clock = clock or Clock(client)
    store = RedisTurnStore(settings, client)
    scripts = cast("Scripts", RepeatingScripts(client, SCRIPTS, repeats, clock.tick))
    store._scripts = scripts
    for part in (store.calls, store.conversations, store.data, store.lists, store.hooks):
        cast("Any", part)._scripts = scripts

    def expire(conversation_id: str) -> None:
        client.hset(conversation_keys(conversation_id).lease, "expires", 0)

    def overdue(conversation_id: str, since: float = 0.001) -> None:
        due = round((clock.now - since) * 1000)
        client.zadd(conversation_keys(conversation_id).due, {conversation_id: due})

    def has_due(conversation_id: str) -> bool:
        return client.zscore(conversation_keys(conversation_id).due, conversation_id) is not None

    def lose(turn_id: str) -> None:
        client.delete(turn_keys(turn_id).turn)

    def forget(conversation_id: str) -> None:
        keys = conversation_keys(conversation_id)
        client.delete(keys.meta, keys.messages, keys.blobs)

    return Bench(store, settings, expire, overdue, has_due, lose, forget)
