"""Moves the records of ended turns to the archive and back. A crash at any point loses and
duplicates nothing.

Out, many at a time: `pack_turns` records that copies are about to be made and returns the turns'
states; the copies are stored in one transaction; `depart_turns` deletes the records whose state has
not changed, and keeps each turn's entry in a list. Back: `arrive_turn` makes the copy the record,
and records that the copy is no longer valid.
"""

from __future__ import annotations

import logging
import math
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import orjson
import redis

from agentapi.archive.protocol import Archive
from agentapi.archive.turns import ArchivedTurn, FoundTurns, TurnFilter
from agentapi.errors import ArchiveLost, StoreFault, UnreadableRecord
from agentapi.ids import PARTITIONS, partition_of_turn
from agentapi.logs import line
from agentapi.metrics import recorder
from agentapi.metrics.catalog import ARCHIVED_TURNS
from agentapi.redis.archived import AwayTurn
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import copied_key, copies_key, list_keys, turn_keys, turns_prefix
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.archiving import PATIENCE
from agentapi.stores.redis.codec import turn_from_hash
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.values import ENDED, milliseconds, moment
from agentapi.turns import Turn

log = logging.getLogger("agentapi.archive")

T = TypeVar("T")

MOVED: Final = ("completed", "cancelled")
"""Statuses of the turns that move. A failed turn stays, because it may be retried."""

MOVED_LISTS: Final = {status: f"moved:{status}" for status in MOVED}
"""For each of these statuses, the list of its turns that are in the archive."""

REST: Final = 600.0
"""Seconds for which a turn stays in Redis after it was restored from the archive."""

VALID: Final = 300.0
"""Seconds for which a copy that was read may become the record. Shorter than `REST`, so in this
time the turn cannot have come back, changed and moved again."""

_TURNS: Final = 32
"""Maximum turns of one list that a script examines."""

_BYTES: Final = 131_072
"""Bytes of records after which the script stops."""

_PIECE: Final = 16
"""Partitions whose turns are moved in one transaction."""

_EXPELLED: Final = 200
"""Maximum turns of a partition that are deleted together."""

_Place: TypeAlias = tuple[int, str]
"""A list: partition and status."""

_SHORT: Final = 60.0
"""Seconds that most turns take. A turn that was accepted before the time at which turns move, and
ended after it, is skipped until all turns are examined again."""


def moved_keys(partition: int) -> list[str]:
    """Names of the lists of a partition's turns whose records are in the archive."""
    return list_keys(partition, list(MOVED_LISTS.values()))


_NOTE: Final = re.compile(rb"(\d+)t:(\d{3}-[0-9a-f]{32})")
"""The content of a note about a turn's copy: its version and the turn."""


class Asked(Protocol):
    """Access to the archive."""

    def ready(self) -> Archive:
        """The archive, with its tables in place."""
        ...

    def ask(self, question: Callable[[Archive], T]) -> T:
        """Read from the archive, for a waiting caller."""
        ...


class _Packed(NamedTuple):
    """The turns found in a list."""

    looked_at: int
    more: bool
    turns: Sequence[_Leaving]


class _Leaving:
    """A turn that is about to be copied."""

    def __init__(self, place: _Place, reply: Sequence[Any], now: int) -> None:
        turn_id, version, left, self.state, text, flat = reply
        self.place, self.turn_id, self.version = place, turn_id.decode(), int(version)
        self.fields: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
        if text:
            self.fields[b"messages"] = text
        self._now, self.expires = now, now + int(left)

    @property
    def parent(self) -> str | None:
        """The turn that waited for its reply."""
        parent = self.fields.get(b"parent")
        return None if parent is None else parent.decode()

    def copy(self) -> ArchivedTurn:
        """The copy.

        Raises:
            UnreadableRecord: No release wrote it, or a newer one did.
            UnicodeDecodeError: As above.
        """
        known = {name.decode(): value for name, value in self.fields.items()}
        turn = turn_from_hash(self.turn_id, known)
        return ArchivedTurn(
            turn_id=self.turn_id,
            version=self.version,
            archived=self._now,
            expires=self.expires,
            fields={name: value.decode() for name, value in known.items()},
            **_shown(turn),
        )


class RedisTurnArchiving(RedisPart):
    """Moves ended turns out of Redis and back. One thread moves them out; any thread may bring them
    back."""

    def __init__(
        self, settings: Settings, client: redis.Redis, scripts: Scripts, archive: Asked
    ) -> None:
        super().__init__(settings, client, scripts)
        self._archive = archive
        self._after = milliseconds(settings.archive_turns_after)
        self._retention = self._retentions[0]
        most = max(settings.turn_limit, settings.list_limit) if settings.turn_limit else 0
        self._limit = math.ceil(most / PARTITIONS)
        self._left_out: dict[_Place, int] = {}

    @property
    def on(self) -> bool:
        """Whether turns move."""
        return self._after > 0

    def begin(self) -> None:
        """Examine all turns again, including those that stayed before."""
        self._left_out.clear()

    def move_some(self, partitions: Sequence[int] = range(PARTITIONS)) -> tuple[int, bool]:
        """Move some turns of each partition.

        Args:
            partitions: The partitions to search.

        Returns:
            How many moved, and whether there may be more.

        Raises:
            ArchiveUnavailable: The archive cannot be reached; turns that have not moved stay.
            StoreUnavailable: Redis cannot be reached; each turn is in one of the two.
        """
        moved, more = 0, False
        for first in range(0, len(partitions), _PIECE):
            began = time.monotonic()
            piece = partitions[first : first + _PIECE]
            packed = self._pack([(partition, status) for partition in piece for status in MOVED])
            gone = self._move([turn for found in packed.values() for turn in found.turns], began)
            for place, found in packed.items():
                self._left_out[place] = (
                    self._left_out.get(place, 0) + found.looked_at - gone.get(place, 0)
                )
                more = more or found.more
            moved += sum(gone.values())
        return moved, more

    def _pack(self, places: Sequence[_Place]) -> dict[_Place, _Packed]:
        times = (min(milliseconds(_SHORT), self._after // 10), max(milliseconds(REST), self._after))
        call = uuid.uuid4().hex
        calls: list[Call] = [
            (
                [*list_keys(partition, [status]), copies_key(partition), copied_key(partition)],
                [
                    *(status, self._left_out.get((partition, status), 0), self._after, *times),
                    *(_TURNS, _BYTES, milliseconds(PATIENCE), turns_prefix(partition), call),
                ],
            )
            for partition, status in places
        ]
        packed: dict[_Place, _Packed] = {}
        for place, reply in zip(places, self._each("pack_turns", calls), strict=True):
            # Without an answer, its shard is unavailable.
            if reply is not None:
                looked_at, more, now, turns = reply
                leaving = [_Leaving(place, turn, int(now)) for turn in turns]
                packed[place] = _Packed(looked_at, more == 1, leaving)
        return packed

    def _move(self, turns: Sequence[_Leaving], began: float) -> Mapping[_Place, int]:
        """Store copies and delete the records; returns how many, by list."""
        waited_for = self._waited_for({turn.parent for turn in turns if turn.parent})
        copies = {}
        for turn in turns:
            if turn.parent in waited_for:
                continue
            try:
                copies[turn.turn_id] = turn.copy()
            except (UnreadableRecord, UnicodeDecodeError):
                # It may have been written by a newer release. It stays until its retention ends.
                recorder().count(ARCHIVED_TURNS, "out", "failed")
        stored = self._put(list(copies.values()))
        if time.monotonic() - began > PATIENCE / 2:
            # Another process may delete the copies as abandoned, and a failover may hide that.
            recorder().count(ARCHIVED_TURNS, "out", "changed", by=len(stored))
            return {}
        return self._depart([turn for turn in turns if (turn.turn_id, turn.version) in stored])

    def _waited_for(self, parents: set[str]) -> set[str | None]:
        """The parents that have not ended: they may still need the turn."""
        pipeline = self._client.pipeline(transaction=False)
        listed = sorted(parents)
        for parent in listed:
            pipeline.hget(turn_keys(parent).turn, "status")
        with translate_errors(self._settings.redis_url):
            found = pipeline.execute() if listed else []
        return {
            parent
            for parent, status in zip(listed, found, strict=True)
            if status is not None and status not in ENDED
        }

    def _put(self, copies: Sequence[ArchivedTurn]) -> frozenset[tuple[str, int]]:
        archive = self._archive.ready()
        try:
            return archive.put_turns(copies)
        except StoreFault as error:
            if len(copies) == 1:
                recorder().count(ARCHIVED_TURNS, "out", "failed")
                name = type(error).__name__
                log.error(line("archive.failed", turn_id=copies[0].turn_id, error=name))
                return frozenset()
            # One of them is faulty; the others can still move.
            return frozenset().union(*(self._put([copy]) for copy in copies))

    def _depart(self, turns: Sequence[_Leaving]) -> Mapping[_Place, int]:
        leaving: dict[_Place, list[_Leaving]] = defaultdict(list)
        for turn in turns:
            leaving[turn.place].append(turn)
        calls: list[Call] = [
            (
                [
                    *list_keys(partition, [status, MOVED_LISTS[status]]),
                    *(copies_key(partition), copied_key(partition)),
                ],
                [
                    turns_prefix(partition),
                    *chain.from_iterable((t.turn_id, t.version, t.state, t.expires) for t in found),
                ],
            )
            for (partition, status), found in leaving.items()
        ]
        answers = self._each("depart_turns", calls) if calls else []
        gone = {place: sum(reply or ()) for place, reply in zip(leaving, answers, strict=True)}
        moved = sum(gone.values())
        recorder().count(ARCHIVED_TURNS, "out", "moved", by=moved)
        recorder().count(ARCHIVED_TURNS, "out", "changed", by=len(turns) - moved)
        return gone

    def bring_back(self, away: AwayTurn) -> None:
        """Bring a turn's record back for a caller that needs it, unless this takes too long.

        Raises:
            ArchiveLost: It is not in the archive.
            ArchiveUnavailable: The archive cannot be reached.
            StoreUnavailable: Redis cannot be reached.
        """
        turn_id = away.turn_id
        found = self._archive.ask(lambda archive: archive.turns_of([turn_id]))
        args: list[Any] = ["", 0, self._retention]
        for copy in found:
            fields = chain.from_iterable(copy.fields.items())
            args = [copy.version, copy.expires, self._retention, *fields]
        keys = [turn_keys(turn_id).turn, copies_key(partition_of_turn(turn_id))]
        args = [turn_id, away.asked, milliseconds(VALID), *args]
        [outcome] = self._call("arrive_turn", keys, args)
        if outcome == b"lost":
            recorder().count(ARCHIVED_TURNS, "in", "failed")
            log.error(line("archive.lost", turn_id=turn_id))
            raise ArchiveLost(
                "the archive does not have this turn: restore the archive from a backup, or check "
                "that AGENTAPI_ARCHIVE_URL names the database that the workers use",
                turn_id=turn_id,
            )
        recorder().count(ARCHIVED_TURNS, "in", "moved" if outcome == b"back" else "changed")

    def listed(self, turn_ids: Sequence[str]) -> dict[str, ArchivedTurn]:
        """Turns of a list that are in the archive, without their records, by id.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
        """
        found = self._archive.ask(lambda archive: archive.turns_of(turn_ids, whole=False))
        return {turn.turn_id: turn for turn in found}

    def found(self, wanted: TurnFilter, limit: int) -> FoundTurns:
        """The newest turns that match, as far as the archive has copies of them.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
        """
        return self._archive.ask(lambda archive: archive.find_turns(wanted, limit))

    def owned(
        self, user_id: str | None, tenant_id: str | None, within: Collection[str] = ()
    ) -> Iterator[ArchivedTurn]:
        """Turns of a user or tenant with copies in the archive, without their records. Includes
        turns that have come back but still have copies.

        Args:
            user_id: The user; "" for those without one, None for any.
            tenant_id: The tenant; "" for those without one, None for any.
            within: Conversations whose turns to include.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
        """
        yield from self._owned({"user_id": user_id, "tenant_id": tenant_id})
        for conversation_id in within:
            for turn in self._owned({"conversation_id": conversation_id}):
                if user_id not in (None, turn.user_id) or tenant_id not in (None, turn.tenant_id):
                    yield turn

    def _owned(self, whose: Mapping[str, Any]) -> Iterator[ArchivedTurn]:
        after = ""
        while page := self._archive.ready().turn_page(after=after, limit=1000, **whose):
            after = page[-1].turn_id
            pipeline = self._client.pipeline(transaction=False)
            for turn in page:
                for key in moved_keys(partition_of_turn(turn.turn_id)):
                    pipeline.zscore(key, turn.turn_id)
                # It may have come back in the meantime.
                pipeline.exists(turn_keys(turn.turn_id).turn)
            with translate_errors(self._settings.redis_url):
                found = iter(pipeline.execute())
            for turn in page:
                *scores, here = islice(found, len(MOVED) + 1)
                if here or any(score is not None for score in scores):
                    yield turn

    def expel(self) -> int:
        """Delete the oldest archived turns beyond `turn_limit`; returns how many.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
            StoreUnavailable: Redis cannot be reached.
        """
        deleted = 0
        for (partition, status), excess in self._excess().items():
            [moved] = list_keys(partition, [MOVED_LISTS[status]])
            with translate_errors(self._settings.redis_url):
                oldest = cast("list[bytes]", self._client.zrange(moved, 0, excess - 1))
            ids = [turn_id.decode() for turn_id in oldest]
            copies = {c.turn_id: c for c in self._archive.ready().turns_of(ids)}
            args = chain.from_iterable(_expelled(turn_id, copies.get(turn_id)) for turn_id in ids)
            deleted += self._call("expel_turns", [moved, copies_key(partition)], list(args))
        return deleted

    def _excess(self) -> dict[_Place, int]:
        if not self._limit:
            return {}
        places = [(p, status) for p in range(PARTITIONS) for status in MOVED]
        pipeline = self._client.pipeline(transaction=False)
        for partition, status in places:
            for key in list_keys(partition, [status, MOVED_LISTS[status]]):
                pipeline.zcard(key)
        with translate_errors(self._settings.redis_url):
            counts = iter(pipeline.execute())
        excess = {place: (next(counts) - self._limit, next(counts)) for place in places}
        return {
            place: min(beyond + moved, moved, _EXPELLED)
            for place, (beyond, moved) in excess.items()
            if moved and beyond + moved > 0
        }

    def discard(self, notes: Sequence[bytes]) -> list[bytes]:
        """Delete the copies of turns that the notes name; returns the remaining notes.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
        """
        found = [(note, _NOTE.fullmatch(note)) for note in notes]
        copies = [(match[2].decode(), int(match[1])) for _, match in found if match]
        if copies:
            self._archive.ready().delete_turns(copies)
        return [note for note, match in found if match is None]

    def expire(self) -> int:
        """Delete turns whose retention has ended, as their copies say; returns how many copies.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
            StoreUnavailable: Redis cannot be reached.
        """
        with translate_errors(self._settings.redis_url):
            now = self._client.time()[0] * 1000
        deleted = 0
        while copies := self._archive.ready().expired_turns(now):
            here = self._unlist(copies)
            if not here:
                # Their shards are away.
                break
            deleted += self._archive.ready().delete_turns(here)
        return deleted

    def _unlist(self, copies: Sequence[tuple[str, int, int]]) -> list[tuple[str, int]]:
        """Take turns out of their lists; returns id and version of those whose shard answers."""
        places: dict[int, list[Any]] = defaultdict(list)
        for turn_id, _, created in copies:
            places[partition_of_turn(turn_id)] += (turn_id, created)
        calls: list[Call] = [(moved_keys(p), args) for p, args in places.items()]
        answers = self._each_of_some("unlist_turns", calls)
        here = {p for p, answer in zip(places, answers, strict=True) if answer is not None}
        return [(turn_id, v) for turn_id, v, _ in copies if partition_of_turn(turn_id) in here]


def _expelled(turn_id: str, copy: ArchivedTurn | None) -> Sequence[Any]:
    if copy is None:
        return turn_id, "", "", 0, 0
    marks = (int("idle" in copy.fields), int("successor" in copy.fields))
    return turn_id, copy.version, copy.conversation_id, *marks


def _shown(turn: Turn) -> dict[str, Any]:
    """The archive's metadata of a turn."""
    return {
        "conversation_id": turn.conversation_id,
        "user_id": turn.user_id or "",
        "tenant_id": turn.tenant_id or "",
        "agent": turn.agent,
        "kind": turn.kind.value,
        "status": turn.status.value,
        "attempt": turn.attempt,
        "steps": turn.steps,
        "worker": turn.worker,
        "parent_id": turn.parent_id,
        "cancel_requested": turn.cancel_requested,
        "created": moment(turn.created_at),
        "started": moment(turn.started_at),
        "ended": moment(turn.ended_at),
        "input_tokens": turn.usage.input_tokens,
        "output_tokens": turn.usage.output_tokens,
        "cached_tokens": turn.usage.cached_tokens,
        "cost": turn.usage.cost,
        "metadata": orjson.dumps(dict(turn.metadata)).decode(),
    }
