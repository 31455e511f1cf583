"""The turns of a list that are in the archive, where it is asked for those that match.

A page reads the lists in Redis first, without turns in the archive; then the archive, down to the
time that every list was read to; and then, in Redis, whether what the archive has is in a list. So
a turn that moves meanwhile is found before or after its move, and other copies mean nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Final

import redis

from agentapi.archive.turns import ArchivedTurn, TurnFilter
from agentapi.ids import PARTITIONS, partition_of_turn
from agentapi.redis.keys import list_keys, turns_prefix
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.stores.lists import TurnQuery, TurnSummary
from agentapi.stores.merging import Match, Piece, Place
from agentapi.stores.redis.lists_codec import archived_summary
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.turn_archiving import MOVED_LISTS, RedisTurnArchiving
from agentapi.stores.redis.values import moment

ARCHIVE: Final = PARTITIONS
"""Names the archive among the partitions whose pieces a page merges."""


class ArchivedLists(RedisPart):
    """Reads lists of turns out of the archive. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        scripts: Scripts,
        archived: RedisTurnArchiving,
    ) -> None:
        super().__init__(settings, client, scripts)
        self._archived = archived

    def page(self, query: TurnQuery, limit: int) -> ArchivedPage | None:
        """What a page has of the archive; None if its turns are better asked for by their ids,
        because all of them match."""
        asked = (query.agent, query.tenant_id, query.user_id, query.conversation_id)
        if all(value is None for value in asked):
            return None
        return ArchivedPage(self, query, limit)

    def find(
        self, wanted: TurnFilter, limit: int, known: Collection[str], lost: Collection[int]
    ) -> tuple[Piece[ArchivedTurn], set[int]]:
        """Turns that match and have a place in a list.

        Args:
            wanted: Which turns.
            limit: How many are enough.
            known: Turns that are known already, to leave out.
            lost: Partitions that do not answer, to leave out.

        Returns:
            The turns, and further partitions that do not answer.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
            StoreUnavailable: Redis cannot be reached.
        """
        found = self._archived.found(wanted, limit)
        others: dict[int, list[ArchivedTurn]] = defaultdict(list)
        for turn in found.turns:
            partition = partition_of_turn(turn.turn_id)
            if turn.turn_id not in known and partition not in lost:
                others[partition].append(turn)
        answers = self._placed(others)
        matches = [
            Match(turn.created, turn.turn_id, turn)
            for partition, turns in others.items()
            for turn, placed in zip(turns, answers[partition] or [0] * len(turns), strict=True)
            if placed
        ]
        piece = Piece(matches=matches, reached=found.reached, looked_at=found.looked_at)
        return piece, {partition for partition, answer in answers.items() if answer is None}

    def _placed(
        self, turns: Mapping[int, Sequence[ArchivedTurn]]
    ) -> dict[int, Sequence[int] | None]:
        names = [name for status, moved in MOVED_LISTS.items() for name in (moved, status)]
        calls: list[Call] = [
            (
                list_keys(partition, names),
                [
                    turns_prefix(partition),
                    *chain.from_iterable((turn.turn_id, turn.created) for turn in some),
                ],
            )
            for partition, some in turns.items()
        ]
        answers = self._each_of_some("placed", calls) if calls else []
        return dict(zip(turns, answers, strict=True))


class ArchivedPage:
    """The turns of one page that are in the archive.

    Attributes:
        lost: Partitions that did not answer.
    """

    def __init__(self, lists: ArchivedLists, query: TurnQuery, limit: int) -> None:
        self.lost: set[int] = set()
        self._lists, self._query = lists, query
        # One more says whether another page follows.
        self._limit = limit + 1
        self._known: set[str] = set()
        self._reached: dict[int, int] = {}
        self._any = False

    def note(self, partition: int, piece: Piece[TurnSummary], away: int) -> None:
        """Note what was read of a partition's lists.

        Args:
            partition: The partition.
            piece: What was read.
            away: Turns in the archive that have a place in the same part of its lists.
        """
        self._known.update(match.entry for match in piece.matches)
        self._any = self._any or away > 0
        self._reached.pop(partition, None)
        if piece.reached is not None:
            self._reached[partition] = piece.reached

    def read(self, place: Place) -> Piece[TurnSummary]:
        """Read the archive on from a place, as far as all partitions were read.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
            StoreUnavailable: Redis cannot be reached.
        """
        down_to = max(self._reached.values(), default=None)
        if not self._any:
            return Piece(matches=(), reached=down_to, looked_at=0)
        wanted = _filter(self._query, place, down_to)
        piece, lost = self._lists.find(wanted, self._limit, self._known, self.lost)
        self.lost |= lost
        return Piece(
            matches=[
                Match(match.time, match.entry, summary)
                for match in piece.matches
                if (summary := if_wanted(archived_summary(match.item), self._query)) is not None
            ],
            reached=down_to if piece.reached is None else piece.reached,
            looked_at=piece.looked_at,
        )


def _filter(query: TurnQuery, place: Place, down_to: int | None) -> TurnFilter:
    until, behind = moment(query.until), ""
    if not math.isinf(place.time) and (until is None or place.time <= until):
        until, behind = int(place.time) - (not place.entry), place.entry
    return TurnFilter(
        statuses=frozenset(status.value for status in query.statuses),
        agent=query.agent,
        tenant_id=query.tenant_id,
        user_id=query.user_id,
        conversation_id=query.conversation_id,
        since=moment(query.since) if down_to is None else down_to,
        until=until,
        behind=behind,
    )


def if_wanted(turn: TurnSummary | None, query: TurnQuery) -> TurnSummary | None:
    """A turn from the archive, if it matches what list.lua could not see."""
    if turn is None or turn.status not in query.statuses:
        return None
    asked = (
        (query.agent, turn.agent),
        (query.tenant_id, turn.tenant_id),
        (query.user_id, turn.user_id),
        (query.conversation_id, turn.conversation_id),
    )
    fits = all(wanted is None or wanted == (found or "") for wanted, found in asked)
    return turn if fits else None
