"""Members of a due index: conversations, and errands."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from agentapi.ids import partition_of_turn
from agentapi.logs import line
from agentapi.stores.calls import Errand, ErrandKind

log = logging.getLogger("agentapi.store")

_MARK: Final = "\x01"
"""Errands begin with it; ids of conversations have no control characters."""

_MOST_TOLD: Final = 10_000
"""Members remembered as reported; beyond that they are reported again."""

_LONGEST_SHOWN: Final = 200


def member_of(errand: Errand) -> str:
    """How an errand lies in a due index."""
    return f"{_MARK}{errand.kind}:{errand.turn_id}"


class DueReader:
    """Reads members, and leaves out those that this release cannot read."""

    def __init__(self) -> None:
        self._told: set[bytes] = set()

    def read(self, members: Iterable[tuple[int, bytes]]) -> list[str | Errand]:
        """Conversations' ids and errands.

        Args:
            members: Of each the partition and the bytes. One that a newer release wrote waits for
                a newer worker, and keeps this one from no other; it is reported once.
        """
        found: list[str | Errand] = []
        for partition, member in members:
            try:
                found.append(_read(partition, member))
            except ValueError:
                self._tell(partition, member)
        return found

    def _tell(self, partition: int, member: bytes) -> None:
        if member in self._told:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told.add(member)
        shown = member[:_LONGEST_SHOWN]
        log.error(line("due.unreadable", partition=partition, member=shown))


def _read(partition: int, member: bytes) -> str | Errand:
    text = member.decode()
    if not text.startswith(_MARK):
        return text
    kind, _, turn_id = text.removeprefix(_MARK).partition(":")
    partition_of_turn(turn_id)
    return Errand(kind=ErrandKind(kind), turn_id=turn_id, partition=partition)
