"""What requests may decide about an agent, as workers report it to gateways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentapi.agents.definition import AgentDefinition
from agentapi.providers import providers
from agentapi.turns.request_options import SAMPLING
from agentapi.turns.request_policy import POLICY_VALUES, RequestPolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedRequests:
    """What requests may decide about an agent.

    Attributes:
        policy: The agent's policy, or the fleet's.
        sampling: The fields of `Sampling` that all providers of the agent support.
    """

    policy: RequestPolicy
    sampling: frozenset[str]

    def both(self, other: AcceptedRequests) -> AcceptedRequests:
        """What both accept, for example while a new definition is rolled out."""
        return AcceptedRequests(
            policy=self.policy.strictest(other.policy), sampling=self.sampling & other.sampling
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for a worker's answer."""
        return {"policy": asdict(self.policy), "sampling": sorted(self.sampling)}

    @classmethod
    def from_dict(cls, data: object) -> AcceptedRequests | None:
        """Read a worker's answer; None if the worker's release does not report it.

        Values that this release does not know count as refusals.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("policy"), Mapping):
            return None
        stored, sampling = data["policy"], data.get("sampling")
        values: dict[str, Any] = {
            name: stored[name] if stored.get(name) in known else "refuse"
            for name, known in POLICY_VALUES.items()
        }
        names = sampling if isinstance(sampling, list) else []
        return cls(
            policy=RequestPolicy(**values),
            sampling=frozenset(name for name in names if isinstance(name, str)) & SAMPLING,
        )


def accepted_by(agent: AgentDefinition, default: RequestPolicy) -> AcceptedRequests:
    """What requests may decide about an agent.

    Args:
        agent: The agent.
        default: The policy of agents that have none of their own.
    """
    supported = [providers.sampling(choice.provider) for choice in agent.choices]
    return AcceptedRequests(
        policy=agent.accepts or default, sampling=SAMPLING.intersection(*supported)
    )
