"""Applies the agent's policy to a request's options, before the turn is accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentapi.agents.accepted import AcceptedRequests
from agentapi.errors import InvalidInput
from agentapi.turns import RequestOptions, RequestRefused
from agentapi.turns.request_policy import grant
from orchestrator.gateway.agent_directory import AgentDirectory
from orchestrator.gateway.http.errors import InvalidRequest, UnsupportedParameter
from orchestrator.gateway.openai.request_options import Asked, without

IGNORED: Final = "x-agentapi-ignored"
"""The response header that lists the ignored parameters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """The options of a request that the policy accepts.

    Attributes:
        options: The options to store with the turn; None if there are none.
        ignored: The ignored parameters, as the client wrote them.
    """

    options: RequestOptions | None
    ignored: tuple[str, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """The header that lists ignored parameters, if any."""
        return {IGNORED: ", ".join(self.ignored)} if self.ignored else {}


async def decide(agents: AgentDirectory, agent: str, asked: Asked) -> Decided:
    """Apply an agent's policy to a request.

    While the policy is unknown because no worker has reported it, the worker that runs the turn
    decides.

    Args:
        agents: The directory with the policies.
        agent: Name of the agent.
        asked: The options of the request.

    Raises:
        UnknownAgent: The agent does not exist.
        UnsupportedParameter: The agent does not allow requests to set a parameter.
        InvalidRequest: A requested schema is not valid.
    """
    if asked.options.empty:
        return Decided(options=None, ignored=asked.ignored)
    # Asks the workers again about an unknown agent, which may be new.
    await agents.check(agent)
    known = await agents.accepted(agent)
    if known is None:
        return Decided(options=asked.options, ignored=asked.ignored)
    return _decide(known, agent, asked)


def _decide(known: AcceptedRequests, agent: str, asked: Asked) -> Decided:
    names = asked.names
    try:
        granted = grant(asked.options, known.policy, agent)
    except RequestRefused as refusal:
        param = names.get(refusal.names[0], refusal.names[0])
        raise UnsupportedParameter(
            f"{param} is not supported: the definition of agent {agent!r} decides it; omit it",
            param=param,
        ) from None
    except InvalidInput as error:
        raise InvalidRequest(str(error), param=names.get("output")) from None
    unsupported = tuple(sorted(granted.options.sampling.given().keys() - known.sampling))
    options = without(granted.options, unsupported)
    ignored = [names.get(name, name) for name in (*granted.ignored, *unsupported)]
    return Decided(options=None if options.empty else options, ignored=(*asked.ignored, *ignored))
