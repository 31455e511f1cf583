"""Archived conversations and turns: a script refuses to touch them (`away` and `away_turn` in the
store's prelude) and names the one that it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from redis.exceptions import RedisError

from agentapi.errors import ArchiveUnavailable

MAX_RETURNS: Final = 3
"""How many times one call restores a record that moves to the archive again in between."""

_AWAY: Final = re.compile(r"ARCHIVED ([0-9a-f]{32}) (.+)", re.S)
_AWAY_TURN: Final = re.compile(r"ARCHIVED TURN (\d{3}-[0-9a-f]{32}) (\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Away:
    """A conversation whose history is in the archive.

    Attributes:
        conversation_id: Its id.
        version: Identifies the copy; see `agentapi.archive.protocol`.
    """

    conversation_id: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AwayTurn:
    """A turn whose record is in the archive.

    Attributes:
        turn_id: Its id.
        asked: Time of the script's refusal: milliseconds of Redis's clock.
    """

    turn_id: str
    asked: int


Absent: TypeAlias = Away | AwayTurn
"""A record that is in the archive and must come back before a call can continue."""


def away_of(error: RedisError) -> Absent | None:
    """The archived record that a script refused to touch; None for any other error."""
    if found := _AWAY.fullmatch(str(error)):
        return Away(conversation_id=found[2], version=found[1])
    found = _AWAY_TURN.fullmatch(str(error))
    return AwayTurn(turn_id=found[1], asked=int(found[2])) if found else None


def no_archive() -> ArchiveUnavailable:
    """The error of a process that needs an archived record but has no archive."""
    return ArchiveUnavailable(
        "the conversation or turn is in the archive, but this process has no archive: set "
        "AGENTAPI_ARCHIVE_URL here to the same value as in the workers"
    )
