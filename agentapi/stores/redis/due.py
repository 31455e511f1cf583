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
"""Members for errands begin with this character. Conversation ids contain no control characters."""

_MAX_REPORTED: Final = 10_000
"""Maximum members that are remembered as reported. Beyond that, members are reported again."""

_MAX_SHOWN: Final = 200


def member_of(errand: Errand) -> str:
    """An errand as a member of a due index."""
    return f"{_MARK}{errand.kind}:{errand.turn_id}"


class DueReader:
    """Reads members, without those that this release cannot read."""

    def __init__(self) -> None:
        self._reported: set[bytes] = set()

    def read(self, members: Iterable[tuple[int, bytes]]) -> list[str | Errand]:
        """Read conversation ids and errands.

        Args:
            members: The partition and the bytes of each. A member of a newer release is reported
                once and left to a newer worker; the others are still read.
        """
        found: list[str | Errand] = []
        for partition, member in members:
            try:
                found.append(_read(partition, member))
            except ValueError:
                self._report(partition, member)
        return found

    def _report(self, partition: int, member: bytes) -> None:
        if member in self._reported:
            return
        if len(self._reported) >= _MAX_REPORTED:
            self._reported.clear()
        self._reported.add(member)
        shown = member[:_MAX_SHOWN]
        log.error(line("due.unreadable", partition=partition, member=shown))


def _read(partition: int, member: bytes) -> str | Errand:
    text = member.decode()
    if not text.startswith(_MARK):
        return text
    kind, _, turn_id = text.removeprefix(_MARK).partition(":")
    partition_of_turn(turn_id)
    return Errand(kind=ErrandKind(kind), turn_id=turn_id, partition=partition)
