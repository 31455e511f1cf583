"""Error texts for HTTP clients.

The runtime's errors tell Python programmers and operators what to do: raise a setting, change an
agent. An HTTP client can do neither, and must not learn where the servers are. Operators find the
full text with the turn and in the logs.
"""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = re.compile(r" \(AGENTAPI_\w+(?:, AGENTAPI_\w+)*\)")
"""Settings in parentheses after what they limit."""

_ADDRESS: Final = re.compile(r"\b(Redis|broker) at [^\s:]+://\S+")

_FOR_OTHERS: Final = re.compile(
    r"AGENTAPI_|\bAgent\(|`agentapi |\bagentapi \w+ |\b(?:retry|cancel|result|enqueue)\("
    r"|\bon_incomplete="
)
"""Advice that only operators and Python programs can follow."""

_CLAUSE: Final = re.compile(r"(?<=[;:.?]) ")


def for_clients(text: str) -> str:
    """Return the text without server addresses and advice that an HTTP client cannot follow."""
    plain = _ADDRESS.sub(r"\1", _NAMED.sub("", text))
    if not _FOR_OTHERS.search(plain):
        return plain
    kept: list[str] = []
    for clause in _CLAUSE.split(plain):
        if not _FOR_OTHERS.search(clause):
            kept.append(clause)
        elif kept and kept[-1][-1:] in ":;":
            # The next clause, if any, no longer continues this one.
            kept[-1] = f"{kept[-1][:-1]}."
    return " ".join(kept).removesuffix(".")
