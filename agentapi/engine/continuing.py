"""What happens to a reply that the model did not complete."""

from __future__ import annotations

from typing import Final

from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.finish import COMPLETE, FinishReason, OnIncomplete
from agentapi.conversation.messages import AssistantMessage
from agentapi.engine.progress import TurnProgress
from agentapi.errors import IncompleteReply
from agentapi.turns.steps import ModelStep

CUT_OUTPUT: Final = (
    "Your reply was cut off because it was too long, so it is not complete JSON. Reply again with "
    "shorter values, and with the JSON only."
)
"""The feedback to the model about structured output that was cut off."""

_WHY: Final = {
    FinishReason.LENGTH: "was cut off because it was too long: allow more output tokens in "
    "Agent(options=...), or let the model continue with on_incomplete='continue'",
    FinishReason.CONTENT_FILTER: "was ended by the provider's content filter",
    FinishReason.REFUSAL: "is a refusal to answer",
}


def goes_on(agent: AgentDefinition, progress: TurnProgress) -> bool:
    """Whether the model is asked to continue its latest reply, which was cut off.

    It follows from the recorded steps alone, so every attempt decides the same.
    """
    step = progress.steps[-1] if progress.steps else None
    return (
        agent.on_incomplete is OnIncomplete.CONTINUE
        and isinstance(step, ModelStep)
        and step.rejected is None
        and step.message.finish_reason is FinishReason.LENGTH
        and not step.message.tool_calls
        and progress.continuations < agent.max_continuations
        and progress.model_calls < agent.max_steps
        # A part without text, for example one spent entirely on reasoning, would only repeat.
        and len(step.message.content) > len(progress.text_before(step))
    )


def check_complete(agent: AgentDefinition, reply: AssistantMessage, *, structured: bool) -> None:
    """Check the reply of a turn against its agent's policy.

    Args:
        agent: The agent that replied.
        reply: Its reply.
        structured: Whether the reply must be JSON.

    Raises:
        IncompleteReply: The agent does not accept it, or the JSON is incomplete.
    """
    reason = reply.finish_reason
    if reason in COMPLETE:
        return
    cut_output = structured and reason is FinishReason.LENGTH
    if agent.on_incomplete is OnIncomplete.FAIL or cut_output:
        raise IncompleteReply(
            f"the reply of agent {agent.name!r} {_WHY[reason]} (finish reason {reason.value})",
            finish_reason=reason.value,
        )
