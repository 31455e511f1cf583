"""Errors in words for callers over HTTP.

The runtime's errors tell Python programmers and operators what to do: raise a setting, change an
agent. A caller over HTTP can do neither, and need not know where the servers are. The operator
finds the whole text with the turn, and in the logs.
"""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = re.compile(r" \(AGENTAPI_\w+(?:, AGENTAPI_\w+)*\)")
"""Settings that are only named beside what they limit."""

_ADDRESS: Final = re.compile(r"\b(Redis|broker) at [^\s:]+://\S+")

_FOR_OTHERS: Final = re.compile(
    r"AGENTAPI_|\bAgent\(|`agentapi |\bagentapi \w+ |\b(?:retry|cancel|result|enqueue)\("
    r"|\bon_incomplete="
)
"""What only operators, and programs in Python, can do something with."""

_CLAUSE: Final = re.compile(r"(?<=[;:.?]) ")


def for_clients(text: str) -> str:
    """The text without what only operators and programs in Python can do."""
    plain = _ADDRESS.sub(r"\1", _NAMED.sub("", text))
    if not _FOR_OTHERS.search(plain):
        return plain
    kept: list[str] = []
    for clause in _CLAUSE.split(plain):
        if not _FOR_OTHERS.search(clause):
            kept.append(clause)
        elif kept and kept[-1][-1:] in ":;":
            # What follows, if anything, is no longer its continuation.
            kept[-1] = f"{kept[-1][:-1]}."
    return " ".join(kept).removesuffix(".")
