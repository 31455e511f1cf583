"""What an agent lets requests decide about its turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from agentapi.errors import InvalidInput
from agentapi.turns.request_options import RequestOptions, Sampling

InstructionsPolicy = Literal["append", "replace", "ignore", "refuse"]
ValuePolicy = Literal["accept", "ignore", "refuse"]
PromisePolicy = Literal["accept", "refuse"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestPolicy:
    """What requests may decide about an agent's turns.

    A reply in a requested form and a turn that leaves nothing are promises: a request for one is
    kept or refused, never ignored.

    Attributes:
        instructions: What happens to a request's instructions and system messages: ``append``
            puts them behind the agent's own prompt, ``replace`` puts them in its place,
            ``ignore`` or ``refuse``.
        sampling: Whether temperature, stop texts, limits of the output and the like are passed to
            the model: ``accept``, ``ignore`` or ``refuse``. A limit of the agent's own
            options is never raised.
        reasoning: The same for the effort of reasoning.
        output: Whether a request may ask for JSON: ``accept`` or ``refuse``. An agent with an
            `output_type` always replies in its own type.
        store: Whether a request may ask that nothing of its turn is kept: ``accept`` or
            ``refuse``.
    """

    instructions: InstructionsPolicy = "append"
    sampling: ValuePolicy = "accept"
    reasoning: ValuePolicy = "accept"
    output: PromisePolicy = "accept"
    store: PromisePolicy = "accept"

    def __post_init__(self) -> None:
        for name, allowed in POLICY_VALUES.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")

    def strictest(self, other: RequestPolicy) -> RequestPolicy:
        """A policy that allows only what both allow."""
        chosen = {
            name: max(getattr(self, name), getattr(other, name), key=allowed.index)
            for name, allowed in POLICY_VALUES.items()
        }
        return RequestPolicy(**chosen)


POLICY_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "instructions": ("replace", "append", "ignore", "refuse"),
    "sampling": ("accept", "ignore", "refuse"),
    "reasoning": ("accept", "ignore", "refuse"),
    "output": ("accept", "refuse"),
    "store": ("accept", "refuse"),
}
"""The valid values of each field of a policy, most permissive first."""

DEFAULT_POLICY: Final = RequestPolicy()


class RequestRefused(InvalidInput):
    """A request decides something that its agent does not let requests decide.

    Attributes:
        names: What it decides, as the fields of `RequestOptions` and `Sampling` are named.
    """

    code = "request_refused"

    def __init__(self, message: str, *, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """What remains of a request's options.

    Attributes:
        options: The options that count.
        ignored: The names of those that do not.
    """

    options: RequestOptions
    ignored: tuple[str, ...] = ()


def grant(options: RequestOptions, policy: RequestPolicy, agent: str) -> Granted:
    """Apply an agent's policy to a request's options.

    Args:
        options: What the request decides.
        policy: What the agent lets it decide.
        agent: The agent's name, for errors.

    Raises:
        RequestRefused: The policy refuses some of it.
    """
    asked = _asked(options)
    refused = tuple(name for name in asked if getattr(policy, asked[name]) == "refuse")
    if refused:
        raise RequestRefused(
            f"agent {agent!r} does not let requests decide {', '.join(refused)}: omit it, or allow "
            "it in Agent(accepts=RequestPolicy(...))",
            names=refused,
        )
    ignored = tuple(name for name in asked if getattr(policy, asked[name]) == "ignore")
    return Granted(options=granted_by(options, policy, without=ignored), ignored=ignored)


def granted_by(
    options: RequestOptions, policy: RequestPolicy, *, without: tuple[str, ...]
) -> RequestOptions:
    """The options that count, without some of them; see `grant`."""
    sampling = options.sampling.given()
    return replace(
        options,
        instructions=None if "instructions" in without else options.instructions,
        replace=policy.instructions == "replace",
        sampling=Sampling(**{n: v for n, v in sampling.items() if n not in without}),
        decided=True,
    )


def yielding(policy: RequestPolicy) -> RequestPolicy:
    """The policy of an agent that a turn reaches without being asked by the request's name.

    A request cannot know of such an agent, so what the agent refuses is ignored.
    """
    changes = {
        name: "ignore"
        for name in ("instructions", "sampling", "reasoning")
        if getattr(policy, name) == "refuse"
    }
    return replace(policy, output="accept", store="accept", **cast("dict[str, Any]", changes))


def _asked(options: RequestOptions) -> dict[str, str]:
    """What a request decides, each with the field of the policy that it falls under."""
    asked = {
        name: "reasoning" if name == "reasoning_effort" else "sampling"
        for name in options.sampling.given()
    }
    if options.instructions is not None:
        asked["instructions"] = "instructions"
    if options.output is not None:
        asked["output"] = "output"
    if not options.store:
        asked["store"] = "store"
    return asked
