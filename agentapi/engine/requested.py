"""How a request's options apply to the agent that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentapi.agents.definition import AgentDefinition
from agentapi.engine.reply_format import ReplyFormat, reply_format
from agentapi.turns.request_options import NO_SAMPLING, RequestOptions, Sampling
from agentapi.turns.request_policy import DEFAULT_POLICY, RequestPolicy, grant, yielding

_ANY_OBJECT: Final = "Give your final reply as one JSON object, without other text."
"""OpenAI refuses a request for JSON in which no message mentions JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentRequest:
    """A request's options, as they apply to one agent.

    Attributes:
        sampling: Passed on to the providers.
        reply: The required format of the reply; None for any text.
        bare: Whether the model gets no tools.
        policy: The policy that was applied; None if the request decides nothing.
    """

    sampling: Sampling = NO_SAMPLING
    reply: ReplyFormat | None = None
    bare: bool = False
    policy: RequestPolicy | None = None
    _options: RequestOptions | None = None

    @property
    def replaces(self) -> bool:
        """Whether the request's instructions take the place of the agent's own."""
        options = self._options
        return options is not None and options.replace and options.instructions is not None

    def prompt(self, own: str) -> str:
        """The system prompt.

        Args:
            own: The agent's own system prompt.
        """
        options = self._options
        if options is None:
            return own
        first = "" if self.replaces else own
        wanted = options.output is not None and options.output.schema is None
        parts = (first, options.instructions or "", _ANY_OBJECT if wanted else "")
        return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Requested:
    """The options of a turn's request, for any agent that the turn is handed over to.

    Attributes:
        options: The options; None if there are none.
        agent: The agent that it names. Only for this agent the policy may be applied already.
        default: The policy of agents that have none of their own.
    """

    options: RequestOptions | None = None
    agent: str = ""
    default: RequestPolicy = field(default=DEFAULT_POLICY)

    def of(self, agent: AgentDefinition, before: RequestPolicy | None = None) -> AgentRequest:
        """Apply the options to an agent.

        Args:
            agent: The agent.
            before: The policy that an earlier attempt of the turn applied.

        Raises:
            RequestRefused: The agent does not let requests decide one of the options.
            InvalidInput: The requested schema is not valid.
        """
        options = self.options
        if options is None:
            return AgentRequest(reply=reply_format(agent.output, None))
        named = agent.name == self.agent
        policy = None if named and options.decided else before or agent.accepts or self.default
        if policy is not None:
            applied = policy if named else yielding(policy)
            options = grant(options, applied, agent.name).options
        return AgentRequest(
            sampling=options.sampling,
            reply=reply_format(None if options.bare else agent.output, options.output),
            bare=options.bare,
            policy=policy,
            _options=options,
        )


NOTHING_REQUESTED: Final = Requested()
