"""What a request's options mean for the agent that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentapi.agents.definition import AgentDefinition
from agentapi.engine.reply_format import ReplyFormat, reply_format
from agentapi.turns.request_options import NO_SAMPLING, RequestOptions, Sampling
from agentapi.turns.request_policy import DEFAULT_POLICY, RequestPolicy, grant, yielding

_ANY_OBJECT: Final = "Give your final reply as one JSON object, without other text."
"""OpenAI refuses to ask a model for JSON if no message mentions it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentRequest:
    """What a request means for one agent.

    Attributes:
        sampling: Passed on to the providers.
        reply: The form of the reply; None for any text.
        bare: Whether the model gets no tools.
        policy: The policy that was applied here; None if nothing was to be decided.
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
            own: The agent's own.
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
    """What the request of a turn decides, whichever agents the turn is handed over to.

    Attributes:
        options: What it decides; None for nothing.
        agent: The agent that it names. For this agent alone the options may be decided already.
        default: The policy of agents that have none of their own.
    """

    options: RequestOptions | None = None
    agent: str = ""
    default: RequestPolicy = field(default=DEFAULT_POLICY)

    def of(self, agent: AgentDefinition, before: RequestPolicy | None = None) -> AgentRequest:
        """What the request means for an agent.

        Args:
            agent: The agent.
            before: The policy that an earlier attempt of the turn applied.

        Raises:
            RequestRefused: The agent does not let requests decide that.
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
