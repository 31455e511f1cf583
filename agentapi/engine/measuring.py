"""Metrics of model calls and tool calls."""

from __future__ import annotations

import time

from agentapi.conversation.messages import Usage
from agentapi.metrics import recorder
from agentapi.metrics.catalog import (
    COST,
    MODEL_CALL_DURATION,
    MODEL_CALLS,
    MODEL_FIRST_CHUNK,
    TOKENS,
    TOOL_CALLS,
    TOOL_DURATION,
)
from agentapi.metrics.pace import pace

OK = "ok"


class ModelCallMeter:
    """One call of a model."""

    __slots__ = ("_began", "_labels", "_metrics", "_shown")

    def __init__(self, provider: str, model: str) -> None:
        self._metrics = recorder()
        self._labels = (provider, model)
        self._shown = False
        self._began = time.perf_counter() if self._metrics.on else 0.0

    def shows(self) -> None:
        """Record that text has arrived."""
        if not self._shown and self._metrics.on:
            self._shown = True
            self._metrics.observe(MODEL_FIRST_CHUNK, self._seconds(), *self._labels)

    def answered(self, usage: Usage) -> None:
        """Record that the response is complete."""
        pace.add(model_calls=1, tokens=usage.total_tokens)
        if not self._metrics.on:
            return
        self._metrics.count(MODEL_CALLS, *self._labels, OK)
        self._metrics.observe(MODEL_CALL_DURATION, self._seconds(), *self._labels)
        kinds = (
            ("input", usage.input_tokens),
            ("cached", usage.cached_tokens),
            ("output", usage.output_tokens),
        )
        for kind, tokens in kinds:
            if tokens:
                self._metrics.count(TOKENS, *self._labels, kind, by=tokens)

    def failed(self, code: str) -> None:
        """Record that the call failed with this code."""
        self._metrics.count(MODEL_CALLS, *self._labels, code)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def count_cost(model: str | None, cost: float) -> None:
    """Count the cost of a response by the table of prices.

    Args:
        model: The model that answered, as ``provider:model``.
        cost: 0 for a model without a price.
    """
    if cost > 0 and model is not None:
        pace.add(cost=cost)
        provider, _, name = model.partition(":")
        recorder().count(COST, provider, name, by=cost)


class ToolMeter:
    """One call of an existing tool. Names that a model made up never become labels."""

    __slots__ = ("_began", "_metrics", "_tool")

    def __init__(self, tool: str) -> None:
        self._metrics = recorder()
        self._tool = tool
        self._began = time.perf_counter() if self._metrics.on else 0.0

    def ended(self, outcome: str) -> None:
        """Record that the call has ended: `OK`, or ``failed``."""
        if self._metrics.on:
            self._metrics.count(TOOL_CALLS, self._tool, outcome)
            self._metrics.observe(TOOL_DURATION, time.perf_counter() - self._began, self._tool)
