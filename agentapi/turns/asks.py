"""The turns that a gather or a chain asks for, as producers and workers pass them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import orjson

REPLY: Final = "{reply}"
"""The placeholder, in a link's message, for the reply of the previous link."""

LONGEST_CHAIN: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One turn of a gather or a chain.

    Attributes:
        agent: Name of the agent.
        message: Its message; in a chain ``{reply}`` stands for the reply of the link before it.
        timeout: Seconds it may take; None for as long as the whole flow.
    """

    agent: str
    message: str = REPLY
    timeout: float | None = None


def flow_message(asks: Sequence[Ask]) -> str:
    """Encode the asks as the message of a flow's turn."""
    return orjson.dumps({"v": 1, "asks": [asdict(ask) for ask in asks]}).decode()
