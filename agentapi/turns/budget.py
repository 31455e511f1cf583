"""What turns and conversations may spend: steps, tokens and money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field

from agentapi.conversation.messages import Usage
from agentapi.decoding.records import record_of
from agentapi.errors import BudgetExceeded, InvalidAgent

MILLION: Final = 1_000_000


class Price(BaseModel):
    """What a model costs, in any currency, for a million tokens.

    Attributes:
        cached: The price of input that the provider had cached; that of other input when not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)

    def cost(self, usage: Usage) -> float:
        """The cost of tokens."""
        cached = self.input if self.cached is None else self.cached
        fresh = usage.input_tokens - usage.cached_tokens
        spent = (
            fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output
        )
        return spent / MILLION


def priced(usage: Usage, model: str | None, prices: Mapping[str, Price]) -> Usage:
    """The usage with its cost, if there is a price for the model.

    Args:
        usage: The usage of one model call.
        model: The model that answered, as ``provider:model``.
        prices: Prices by ``provider:model`` or by model alone.
    """
    if not prices or model is None:
        return usage
    price = prices.get(model) or prices.get(model.partition(":")[2])
    return usage if price is None else replace(usage, cost=price.cost(usage))


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What was spent.

    Attributes:
        steps: Model responses and tool results.
        tokens: Tokens of all model calls.
        cost: Their cost by the price table.
    """

    steps: int = 0
    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            steps=self.steps + other.steps,
            tokens=self.tokens + other.tokens,
            cost=self.cost + other.cost,
        )

    def __sub__(self, other: Spent) -> Spent:
        return Spent(
            steps=self.steps - other.steps,
            tokens=self.tokens - other.tokens,
            cost=self.cost - other.cost,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What may be spent. It is checked before each model call, so the last call may exceed it.

    Attributes:
        steps: Model responses and tool results, 0 or more; None for no limit, as for all.
        tokens: Tokens of all model calls, 0 or more.
        cost: By `AGENTAPI_PRICES`, 0 or more. Models without a price cost nothing.
    """

    steps: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value < 0:
                raise InvalidAgent(f"limits: {name} is {value}, expected 0 or more, or None")

    def check(self, spent: Spent, owner: str) -> None:
        """Check that something is left to spend.

        Args:
            spent: What was spent so far.
            owner: What has spent it, for the error: ``turn`` or ``conversation``.

        Raises:
            BudgetExceeded: Nothing is left.
        """
        for name in ("steps", "tokens", "cost"):
            used, limit = getattr(spent, name), getattr(self, name)
            if limit is not None and used >= limit:
                raise BudgetExceeded(
                    f"the {owner} has spent {used:g} of {limit:g} {name}: raise the agent's "
                    "limits, or make the task smaller"
                )

    def tighter(self, other: Limits | None) -> Limits:
        """The tighter of both limits, for each of them."""
        if other is None:
            return self
        return Limits(
            steps=_least(self.steps, other.steps),
            tokens=_least(self.tokens, other.tokens),
            cost=_least(self.cost, other.cost),
        )

    def share(self, spent: Spent, among: int) -> Limits | None:
        """What each of several child turns may spend of what is left; None for no limit."""
        if self == Limits():
            return None
        return Limits(
            steps=None if self.steps is None else max(0, self.steps - spent.steps) // among,
            tokens=None if self.tokens is None else max(0, self.tokens - spent.tokens) // among,
            cost=None if self.cost is None else max(0.0, self.cost - spent.cost) / among,
        )

    def to_json(self) -> bytes:
        """As JSON, for the store."""
        return orjson.dumps({k: v for k, v in asdict(self).items() if v is not None})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read from JSON."""
        return record_of(cls, orjson.loads(data))


NO_LIMITS: Final = Limits()


N = TypeVar("N", int, float)


def _least(one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
