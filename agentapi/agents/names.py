"""Names of agents: which are valid, reserved and known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeGuard

from agentapi.decoding.shown import shown
from agentapi.errors import UnknownAgent

INTERNAL: Final = "agentapi."
"""Prefix of the runtime's own agents, which producers cannot address."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def is_agent_name(name: object) -> TypeGuard[str]:
    """Whether `name` is a valid agent name; see `Agent`."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_internal(name: str) -> bool:
    """Whether a name is reserved for the runtime's own agents."""
    return name.startswith(INTERNAL)


def unknown_agent(name: object, known: Iterable[str]) -> UnknownAgent:
    """The error for an agent that is not registered."""
    names = ", ".join(sorted(each for each in known if not is_internal(each))) or "none"
    return UnknownAgent(
        f"agent {shown(name)} is not registered here (registered: {names}): add its module to "
        "AGENTAPI_AGENTS on every worker"
    )
