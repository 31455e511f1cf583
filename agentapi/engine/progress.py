"""The progress of a turn: its steps, messages, open calls and spent budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from agentapi.conversation.finish import CONTINUE, FinishReason
from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentapi.turns.budget import Spent
from agentapi.turns.model import TurnResult
from agentapi.turns.steps import ModelStep, Step, ToolStep, UserStep


@dataclass(kw_only=True)
class TurnProgress:
    """The progress of a turn: its user message and its steps.

    Attributes:
        prior: Messages from the caller between the user's message and the steps.
        calibration: The provider's count of tokens divided by our estimate.
        contexts: What the conversation newly learned about its models' contexts.
        announced: Whether hooks have seen the start of this attempt.
        reply: The latest step if it is not recorded, because the turn ends with it.
    """

    user: UserMessage
    steps: list[Step] = field(default_factory=list)
    prior: Sequence[Message] = ()
    calibration: float | None = None
    contexts: Mapping[str, int] | None = None
    announced: bool = False
    reply: ModelStep | None = None

    @property
    def usage(self) -> Usage:
        """Tokens of all model calls, including those of child turns."""
        return sum((step.usage for step in self.steps), start=Usage())

    @property
    def spent(self) -> Spent:
        """The usage that limits count, including child turns."""
        usage = self.usage
        below = sum(step.steps for step in self.steps if isinstance(step, ToolStep))
        steps = len(self.steps) + below
        return Spent(steps=steps, tokens=usage.total_tokens, cost=usage.cost)

    @property
    def model_calls(self) -> int:
        """How many model calls were made."""
        return sum(isinstance(step, ModelStep) for step in self.steps)

    @property
    def responses(self) -> int:
        """How many responses the model gave, without rejected ones."""
        return len(self._given())

    def client_responses(self, since: int) -> int:
        """How many responses called client tools, counted from response number `since`."""
        return sum(any(call.client for call in m.tool_calls) for m in self._given()[since:])

    def _given(self) -> list[AssistantMessage]:
        """The model's responses; a response of several steps counts as one."""
        messages = self._messages(rejected=False)[1 + len(self.prior) :]
        return [message for message in messages if isinstance(message, AssistantMessage)]

    @property
    def call_ids(self) -> set[str]:
        """Ids of all calls so far."""
        messages = [step.message for step in self.steps if isinstance(step, ModelStep)]
        messages += [message for message in self.prior if isinstance(message, AssistantMessage)]
        return {call.id for message in messages for call in message.tool_calls}

    @property
    def last_response(self) -> AssistantMessage | None:
        """The latest model response, unless it was rejected."""
        for step in reversed(self.steps):
            if isinstance(step, ModelStep):
                # A rejected reply does not count as an answer, so the loop calls the model again.
                return step.message if step.rejected is None else None
        return None

    @property
    def rejections(self) -> int:
        """How many replies were rejected."""
        return sum(isinstance(s, ModelStep) and s.rejected is not None for s in self.steps)

    @property
    def continuations(self) -> int:
        """How many times the model has continued its latest reply."""
        count = 0
        for step in reversed(self.steps):
            if not (isinstance(step, ModelStep) and step.continued):
                break
            count += 1
        return count

    def text_before(self, step: ModelStep) -> str:
        """The text of the reply that the latest step continues; empty for the first part."""
        previous = self.steps[-2] if step.continued and len(self.steps) > 1 else None
        return previous.message.content if isinstance(previous, ModelStep) else ""

    @property
    def held(self) -> tuple[str, ...]:
        """Ids of the latest response's calls that need a decision."""
        for step in reversed(self.steps):
            if isinstance(step, ModelStep):
                return step.held
        return ()

    @property
    def handed_to(self) -> str | None:
        """The agent that the turn was handed over to last and that answers next, if any."""
        return _last_handoff(self.steps)

    @property
    def responder(self) -> str | None:
        """The agent that gave the latest response, if the turn was handed over to it."""
        responses = [i for i, step in enumerate(self.steps) if isinstance(step, ModelStep)]
        return _last_handoff(self.steps[: responses[-1]]) if responses else None

    def open_calls(self) -> list[ToolCall]:
        """Calls of the latest response without a result."""
        response = self.last_response
        if response is None:
            return []
        done = {step.message.call_id for step in self.steps if isinstance(step, ToolStep)}
        return [call for call in response.tool_calls if call.id not in done]

    def for_model(self) -> list[Message]:
        """The turn's messages, including rejected replies and why they were rejected.

        A reply that was cut off is followed by the request to continue it.
        """
        messages = self._messages(rejected=True)
        response = self.last_response
        if response is not None and not response.tool_calls:
            messages.append(UserMessage(content=CONTINUE))
        return messages

    def messages(self, unfinished: str | None = None) -> list[Message]:
        """The turn's messages; results follow their response in the order of its calls.

        Tools run in parallel and are recorded as they finish, but the history must not depend on
        which finished first.

        Args:
            unfinished: The result to use for calls without one, so that every provider accepts the
                history. By default they stay open.
        """
        messages = self._messages(rejected=False)
        if unfinished is not None:
            messages += [
                ToolMessage(
                    call_id=call.id,
                    name=call.name,
                    content=unfinished,
                    is_error=True,
                    turn_id=self.user.turn_id,
                )
                for call in self.open_calls()
            ]
        return messages

    def _messages(self, *, rejected: bool) -> list[Message]:
        messages: list[Message] = [self.user, *self.prior]
        results = {s.message.call_id: s.message for s in self.steps if isinstance(s, ToolStep)}
        for step, following in zip_longest(self.steps, self.steps[1:]):
            if isinstance(following, ModelStep) and following.continued:
                # Its text is in the next step.
                continue
            if isinstance(step, ModelStep) and step.rejected is None:
                messages.append(step.message)
                calls = step.message.tool_calls
                messages += [results[call.id] for call in calls if call.id in results]
            # The model must see its mistake; the history does not keep it.
            elif isinstance(step, ModelStep) and step.rejected is not None and rejected:
                messages += [step.message, UserMessage(content=step.rejected)]
            elif isinstance(step, UserStep):
                messages.append(step.message)
        return messages

    def result(self) -> TurnResult:
        """The turn's result, once its latest response calls no tools."""
        response = self.last_response
        return TurnResult(
            text=response.content if response else "",
            messages=tuple(self.messages()),
            usage=self.usage,
            steps=len(self.steps),
            finish_reason=response.finish_reason if response else FinishReason.STOP,
        )


def _last_handoff(steps: Sequence[Step]) -> str | None:
    for step in reversed(steps):
        if isinstance(step, ToolStep) and step.handoff is not None:
            return step.handoff
    return None
