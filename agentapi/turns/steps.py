"""Steps: the entries of a turn's journal, one JSON object each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import orjson

from agentapi.conversation.messages import (
    AssistantMessage,
    ToolMessage,
    Usage,
    UserMessage,
    from_dict,
    to_dict,
)
from agentapi.decoding.records import PROTOCOL, check_version, reading, record_of, some_text_in
from agentapi.turns.request_policy import RequestPolicy

_REMEDY: Final = "enqueue the message again as a new turn"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStep:
    """A model's response. Its tool calls count as started, except for those that wait.

    Attributes:
        held: Ids of calls that wait for approval.
        rejected: What the model is told when its reply was rejected and it is asked again; neither
            the reply nor this text enters the history.
        continued: Whether the step before was cut off, and this message begins with its text. It
            takes the place of that step's message.
        prompt: What the agent's prompt function returned for this turn. Only in the first recorded
            step of an agent whose `system_prompt` is a function.
        offered: Names of the tools and tool servers that the agent's tools function returned;
            None as `prompt`.
        policy: What the agent let the turn's request decide, where the worker decided that. Only in
            the first recorded step of the agent.
        seconds: How long the model took, with all retries; for the turn's log, and not recorded.
    """

    message: AssistantMessage
    usage: Usage = field(default_factory=Usage)
    held: tuple[str, ...] = ()
    rejected: str | None = None
    continued: bool = False
    prompt: str | None = None
    offered: tuple[str, ...] | None = None
    policy: RequestPolicy | None = None
    seconds: float | None = field(default=None, compare=False)
    kind: Literal["model"] = field(default="model", init=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolStep:
    """The result of one tool call.

    Attributes:
        usage: Tokens of the turns that the call waited for.
        steps: Steps of those turns.
        handoff: The agent that answers from now on, if the call handed the turn over.
        seconds: How long the tool took; for the turn's log, and not recorded.
    """

    message: ToolMessage
    usage: Usage = field(default_factory=Usage)
    steps: int = 0
    handoff: str | None = None
    seconds: float | None = field(default=None, compare=False)
    kind: Literal["tool"] = field(default="tool", init=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class UserStep:
    """A message that joined the turn while it ran (steering).

    Attributes:
        usage: Nothing; every step has one.
    """

    message: UserMessage
    usage: Usage = field(default_factory=Usage)
    kind: Literal["user"] = field(default="user", init=False)


Step: TypeAlias = ModelStep | ToolStep | UserStep

USER_STEP_VERSION: Final = 2
"""Record version of user steps. Releases that do not know it leave the turn to newer ones."""


def step_to_json(step: Step) -> bytes:
    """The step as it is recorded."""
    version = USER_STEP_VERSION if isinstance(step, UserStep) else PROTOCOL
    data: dict[str, Any] = {"v": version, "kind": step.kind, "message": to_dict(step.message)}
    if isinstance(step, ModelStep) or (isinstance(step, ToolStep) and step.usage != Usage()):
        data["usage"] = step.usage
    if isinstance(step, ModelStep) and step.held:
        data["held"] = step.held
    if isinstance(step, ModelStep) and step.rejected is not None:
        data["rejected"] = step.rejected
    if isinstance(step, ModelStep) and step.continued:
        data["continued"] = True
    if isinstance(step, ModelStep) and step.prompt is not None:
        data["prompt"] = step.prompt
    if isinstance(step, ModelStep) and step.offered is not None:
        data["offered"] = step.offered
    if isinstance(step, ModelStep) and step.policy is not None:
        data["policy"] = step.policy
    if isinstance(step, ToolStep) and step.steps:
        data["steps"] = step.steps
    if isinstance(step, ToolStep) and step.handoff:
        data["handoff"] = step.handoff
    return orjson.dumps(data)


def step_from_json(data: bytes | str) -> Step:
    """Read a recorded step.

    Raises:
        UnreadableRecord: A newer release wrote it, or no release did.
    """
    with reading("a recorded step", remedy=_REMEDY):
        value = orjson.loads(data)
        newest = USER_STEP_VERSION if value.get("kind") == "user" else PROTOCOL
        check_version("a recorded step", value.get("v", PROTOCOL), newest)
        return _step_of(value)


def _step_of(value: Mapping[str, Any]) -> Step:
    message = from_dict(value["message"])
    match value["kind"], message:
        case "model", AssistantMessage():
            held = tuple(value.get("held", ()))
            usage = record_of(Usage, value["usage"])
            rejected = some_text_in(value, "rejected")
            continued = bool(value.get("continued"))
            offered, policy = value.get("offered"), value.get("policy")
            return ModelStep(
                message=message,
                usage=usage,
                held=held,
                rejected=rejected,
                continued=continued,
                prompt=some_text_in(value, "prompt"),
                offered=None if offered is None else tuple(map(str, offered)),
                policy=None if policy is None else record_of(RequestPolicy, policy),
            )
        case "tool", ToolMessage():
            usage = record_of(Usage, value.get("usage", {}))
            steps, handoff = int(value.get("steps", 0)), some_text_in(value, "handoff")
            return ToolStep(message=message, usage=usage, steps=steps, handoff=handoff)
        case "user", UserMessage():
            return UserStep(message=message)
        case _:
            raise ValueError("the kind does not fit the message")
