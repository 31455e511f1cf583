"""Conversations whose history is in the archive: a script refuses to touch them (`away` in the
store's prelude), and says which it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

from agentapi.errors import ArchiveUnavailable

MAX_RETURNS: Final = 3
"""How often one call brings a conversation back that moves away again in between."""

_AWAY: Final = re.compile(r"ARCHIVED ([0-9a-f]{32}) (.+)", re.S)


@dataclass(frozen=True, kw_only=True, slots=True)
class Away:
    """A conversation whose history is in the archive.

    Attributes:
        conversation_id: Its id.
        version: Names the copy; see `agentapi.archive.protocol`.
    """

    conversation_id: str
    version: str


def away_of(error: RedisError) -> Away | None:
    """What a script has refused to touch; None for any other error."""
    found = _AWAY.fullmatch(str(error))
    return Away(conversation_id=found[2], version=found[1]) if found else None


def no_archive() -> ArchiveUnavailable:
    """The error of a process that needs a conversation from the archive, and has none."""
    return ArchiveUnavailable(
        "the conversation is in the archive, and this process has none: set "
        "AGENTAPI_ARCHIVE_URL here as in the workers"
    )
