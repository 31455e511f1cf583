"""Checks of model providers: is there a key, does the server answer, and does it know the models?

The checks spend no tokens.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agentapi.agents.definition import AgentDefinition
from agentapi.checks.findings import Finding, fail, ok, warn
from agentapi.errors import (
    AgentAPIError,
    ProviderMisconfigured,
    ProviderUnavailable,
)
from agentapi.providers import CheckedProvider, Provider, providers

LONGEST: Final = 5.0
"""Seconds that a provider has to answer."""

REMEDIES: Final = {
    "key": "Set the key in the workers' environment or .env file, and restart them.",
    "unreachable": "Check the address (the variable ending in _BASE_URL), the network and the "
    "server.",
    "model": "Correct the model in Agent(provider=..., model=...), or the base URL.",
    "broken": "Check the provider's code, or the worker's log.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderFault:
    """What is wrong with a provider.

    Attributes:
        kind: A key of `REMEDIES`.
        message: The error, without secrets.
    """

    kind: str
    message: str


async def check_providers(
    agents: Iterable[AgentDefinition], longest: float = LONGEST
) -> dict[str, ProviderFault | None]:
    """Check all providers of the agents in parallel, on the running event loop.

    Args:
        agents: The agents.
        longest: Seconds that a provider has to answer.

    Returns:
        The fault of each provider, or None.
    """
    models: dict[str, set[str | None]] = defaultdict(set)
    for agent in agents:
        for choice in agent.choices:
            models[choice.provider].add(choice.model)
    faults = await asyncio.gather(*(_check(name, models[name], longest) for name in models))
    return dict(zip(models, faults, strict=True))


async def _check(name: str, models: set[str | None], longest: float) -> ProviderFault | None:
    try:
        provider = providers.get(name)
        async with asyncio.timeout(longest):
            await _ask(provider, {model or provider.default_model for model in models})
    except TimeoutError:
        what = f"provider {name!r} did not answer within {longest:g} s"
        return ProviderFault(kind="unreachable", message=what)
    except ProviderUnavailable as error:
        return ProviderFault(kind="unreachable", message=str(error))
    except ProviderMisconfigured as error:
        kind = "model" if error.status == _NOT_FOUND else "key"
        return ProviderFault(kind=kind, message=str(error))
    except AgentAPIError as error:
        return ProviderFault(kind="broken", message=str(error))
    except Exception as error:
        # A provider of a third party: the text of its error may contain anything.
        what = f"provider {name!r} cannot be used: {type(error).__name__}"
        return ProviderFault(kind="broken", message=what)
    return None


_NOT_FOUND: Final = 404


async def _ask(provider: Provider, models: set[str]) -> None:
    if isinstance(provider, CheckedProvider):
        await provider.check(models)


def provider_findings(
    agents: Iterable[AgentDefinition], faults: Mapping[str, ProviderFault | None]
) -> Iterator[Finding]:
    """Convert the faults to findings, with the agents that they affect.

    Args:
        agents: The agents that a worker serves.
        faults: See `check_providers`.
    """
    agents = list(agents)
    for name, fault in sorted(faults.items()):
        asking = [a for a in agents if name in {choice.provider for choice in a.choices}]
        if fault is None:
            yield ok("providers.usable", f"provider {name!r} can be used")
            continue
        stuck = [
            agent.name
            for agent in asking
            if all(faults.get(choice.provider) for choice in agent.choices)
        ]
        # A server that lists no models, or lists them under other names, may still work.
        if fault.kind == "model" or not stuck:
            whose, found = [agent.name for agent in asking], warn
        else:
            whose, found = stuck, fail
        yield found(
            f"providers.{fault.kind}",
            f"{fault.message} (agents: {', '.join(sorted(whose))})",
            REMEDIES[fault.kind],
        )
