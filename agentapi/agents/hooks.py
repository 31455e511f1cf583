"""Hooks: small middlewares around an agent's turns, which may look, redact or refuse."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from agentapi.conversation.messages import AssistantMessage, ToolCall
from agentapi.decoding.plain import clean_message, clean_text
from agentapi.errors import AgentAPIError, HookFailed, TurnVetoed
from agentapi.faults import named, stop_if_asked
from agentapi.tools.context import ToolContext
from agentapi.tools.delegation import Delegation
from agentapi.tools.threads import run_in_tool_thread
from agentapi.turns.model import TurnResult

T = TypeVar("T")

Proceed: TypeAlias = Callable[[ToolCall], Awaitable[str | Delegation]]
"""Makes a call, by way of the hooks that come after; raises what the tool raises."""


class Hooks:
    """What may be done around a turn. Override what you need; the rest does nothing.

    All but `on_tool` may be plain functions, which then run in a tool thread. Raise `TurnVetoed`
    to end the turn with a reason. Hooks of an agent run in the order given; those of `on_tool`
    are around each other, the first outermost.

    A step that was recorded is not shown to hooks again after a takeover; `on_turn_start` runs
    once an attempt, and `on_turn_end` when an attempt ends the turn, before that is written down.
    """

    def on_turn_start(self, context: ToolContext, message: str) -> Any:
        """A worker begins the turn, or takes it over.

        Args:
            context: Of the turn.
            message: What the user said.

        Returns:
            What the model and the history get instead, or None to leave it as it is.
        """

    def on_step(self, context: ToolContext, response: AssistantMessage) -> Any:
        """The model has answered; nothing of it is recorded yet.

        Args:
            context: Of the turn.
            response: Text, tool calls, or both. Its `provider_data` goes back to the provider
                verbatim: who changes the text should drop it.

        Returns:
            An `AssistantMessage` to take instead, or None to leave it as it is.
        """

    async def on_tool(
        self, context: ToolContext, call: ToolCall, proceed: Proceed
    ) -> str | Delegation:
        """A tool call is about to be made, approved if it must be.

        Args:
            context: Of the call.
            call: What the model wants.
            proceed: Makes the call; leave it to refuse, change what it gives to redact.

        Returns:
            What the model gets.
        """
        return await proceed(call)

    def on_turn_end(self, context: ToolContext, result: TurnResult[Any] | AgentAPIError) -> Any:
        """The turn has a reply, or fails.

        Args:
            context: Of the turn.
            result: The reply with all that led to it, or why there is none.
        """


class HookChain:
    """An agent's hooks as one."""

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self._hooks = tuple(hooks)

    def __bool__(self) -> bool:
        return bool(self._hooks)

    async def on_turn_start(self, context: ToolContext, message: str) -> str:
        """The message as it goes on.

        Raises:
            TurnVetoed: A hook ends the turn.
            HookFailed: A hook raised something else.
        """
        for hooks in self._hooks:
            changed = await _run(hooks, "on_turn_start", context, message)
            message = _checked(hooks, "on_turn_start", changed, str, message)
        return clean_text(message)

    async def on_step(self, context: ToolContext, response: AssistantMessage) -> AssistantMessage:
        """The response as it goes on; raises as `on_turn_start`."""
        for hooks in self._hooks:
            changed = await _run(hooks, "on_step", context, response)
            if changed is not None:
                checked = _checked(hooks, "on_step", changed, AssistantMessage, response)
                response = clean_message(checked)
        return response

    async def on_tool(
        self, context: ToolContext, call: ToolCall, make: Proceed
    ) -> str | Delegation:
        """What a call gives. Raises what the tool or a hook raises."""
        proceed = make
        for hooks in reversed(self._hooks):
            proceed = _around(hooks, context, proceed)
        return await proceed(call)

    async def on_turn_end(
        self, context: ToolContext, result: TurnResult[Any] | AgentAPIError
    ) -> None:
        """Tell all of them; raises as `on_turn_start`."""
        for hooks in self._hooks:
            await _run(hooks, "on_turn_end", context, result)


def _around(hooks: Hooks, context: ToolContext, proceed: Proceed) -> Proceed:
    async def call_with_hooks(call: ToolCall) -> str | Delegation:
        return await hooks.on_tool(context, call, proceed)

    return call_with_hooks


async def _run(hooks: Hooks, name: str, *args: Any) -> Any:
    method = getattr(hooks, name)
    if getattr(Hooks, name) is getattr(type(hooks), name):
        return None
    try:
        if inspect.iscoroutinefunction(method):
            return await method(*args)
        return await run_in_tool_thread(lambda: method(*args))
    except TurnVetoed:
        raise
    except BaseException as error:
        stop_if_asked(error)
        # The error's text may quote what people said: it goes to the turn, not to a log.
        raise HookFailed(
            f"{type(hooks).__name__}.{name} raised {named(error)}; hooks end a turn with "
            "TurnVetoed, anything else is a fault of theirs"
        ) from error


def _checked(hooks: Hooks, name: str, changed: Any, kind: type[T], before: T) -> T:
    if changed is None:
        return before
    if not isinstance(changed, kind):
        raise HookFailed(
            f"{type(hooks).__name__}.{name} returned a {type(changed).__name__}, expected "
            f"{kind.__name__} or None"
        )
    return changed
