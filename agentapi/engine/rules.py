"""The limits of a turn, from the settings and from its caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentapi.settings import Settings
from agentapi.turns.budget import Limits, Price, Spent


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnRules:
    """The limits of a turn.

    Attributes:
        depth: Number of turns above it.
        max_depth: Maximum number of turns above it.
        max_children: Maximum turns that it may wait for at the same time.
        max_message_bytes: Maximum bytes of a message to another agent.
        max_tool_result_bytes: Longer results of tools are cut off.
        approval_timeout: Seconds to wait for an approval; None waits without a limit.
        client_tool_timeout: Seconds to wait for the output of a client tool.
        prompt_timeout: Seconds that functions given as `system_prompt` or `tools` may take.
        prices: By ``provider:model`` or model.
        budget: What the turn may spend, in addition to its agent's own limits.
        spent_before: What its conversation had spent before.
    """

    depth: int = 0
    max_depth: int = 5
    max_children: int = 50
    max_message_bytes: int = 262_144
    max_tool_result_bytes: int = 1_048_576
    approval_timeout: float | None = None
    client_tool_timeout: float = 3_600
    prompt_timeout: float = 30.0
    prices: Mapping[str, Price] = field(default_factory=dict)
    budget: Limits | None = None
    spent_before: Spent = field(default_factory=Spent)


def turn_rules(
    settings: Settings, depth: int, budget: Limits | None, spent_before: Spent
) -> TurnRules:
    """The rules of a turn, from the settings and from its caller; see `TurnRules`."""
    return TurnRules(
        depth=depth,
        max_depth=settings.max_depth,
        max_children=settings.max_children,
        max_message_bytes=settings.max_message_bytes,
        max_tool_result_bytes=settings.max_tool_result_bytes,
        approval_timeout=settings.approval_timeout,
        client_tool_timeout=settings.client_tool_timeout,
        prompt_timeout=settings.prompt_timeout,
        prices=settings.prices,
        budget=budget,
        spent_before=spent_before,
    )
