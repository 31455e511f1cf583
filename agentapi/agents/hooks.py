"""Hooks: middleware around an agent's turns that can observe, redact or refuse."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from agentapi.conversation.cleaning import clean_message
from agentapi.conversation.messages import AssistantMessage, ToolCall
from agentapi.decoding.plain import clean_text
from agentapi.errors import AgentAPIError, HookFailed, TurnVetoed
from agentapi.faults import named, stop_if_asked
from agentapi.tools.context import ToolContext
from agentapi.tools.delegation import Delegation
from agentapi.tools.threads import run_in_tool_thread
from agentapi.turns.model import Turn, TurnResult

T = TypeVar("T")

Proceed: TypeAlias = Callable[[ToolCall], Awaitable[str | Delegation]]
"""Makes the call through the remaining hooks, and raises what the tool raises."""


class Hooks:
    """Middleware around turns. Override what you need; the defaults do nothing.

    All methods except `on_tool` may be synchronous; they then run in a tool thread. Raise
    `TurnVetoed` to end the turn with a reason. An agent's hooks run in the given order; their
    `on_tool` methods are nested, the first outermost.

    After a takeover, hooks do not see recorded steps again. `on_turn_start` runs once per attempt.
    `on_turn_end` runs when an attempt ends the turn, before the end is stored.
    `on_turn_committed` runs after the end is stored, in any worker.
    """

    def on_turn_start(self, context: ToolContext, message: str) -> Any:
        """Called when a worker starts the turn or takes it over.

        Args:
            context: The turn.
            message: The user's message.

        Returns:
            The message to use instead, for the model and the history; None to keep it.
        """

    def on_step(self, context: ToolContext, response: AssistantMessage) -> Any:
        """Called when the model has responded, before the response is recorded.

        Args:
            context: The turn.
            response: Text, tool calls, or both. Its `provider_data` goes back to the provider
                verbatim: if you change the text, drop it.

        Returns:
            The `AssistantMessage` to use instead; None to keep it.
        """

    async def on_tool(
        self, context: ToolContext, call: ToolCall, proceed: Proceed
    ) -> str | Delegation:
        """Called instead of a tool call, after its approval if it needs one.

        Args:
            context: The call.
            call: The tool call that the model wants.
            proceed: Makes the call. Do not call it to refuse; change its result to redact.

        Returns:
            The result for the model.
        """
        return await proceed(call)

    def on_turn_end(self, context: ToolContext, result: TurnResult[Any] | AgentAPIError) -> Any:
        """Called when the turn has a reply, or fails.

        Args:
            context: The turn.
            result: The reply with every step that led to it, or the error.
        """

    def on_turn_committed(self, turn: Turn, end_id: str) -> Any:
        """Called after a turn's end is stored: a reply, a failure or a cancellation.

        It is called at least once for each end, even if the worker died right after it stored the
        end, or if no worker was involved, for example when a waiting turn is cancelled. It may be
        called again, also by another worker: use `end_id` to act only once. Its errors are logged,
        and it is called again with growing delays, ten times in total. It has 60 seconds.

        The hooks of the agent that the turn was enqueued for are called, whichever agent replied.

        Args:
            turn: The turn as it is stored.
            end_id: Identifies this end, and is the same in every call. A turn that is retried ends
                again with another id.
        """


class HookChain:
    """All hooks of an agent, called as one."""

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self._hooks = tuple(hooks)

    def __bool__(self) -> bool:
        return bool(self._hooks)

    async def on_turn_start(self, context: ToolContext, message: str) -> str:
        """Pass the message through the hooks.

        Raises:
            TurnVetoed: A hook ended the turn.
            HookFailed: A hook raised something else.
        """
        for hooks in self._hooks:
            changed = await _run(hooks, "on_turn_start", context, message)
            message = _checked(hooks, "on_turn_start", changed, str, message)
        return clean_text(message)

    async def on_step(self, context: ToolContext, response: AssistantMessage) -> AssistantMessage:
        """Pass the response through the hooks; raises the same as `on_turn_start`."""
        for hooks in self._hooks:
            changed = await _run(hooks, "on_step", context, response)
            if changed is not None:
                checked = _checked(hooks, "on_step", changed, AssistantMessage, response)
                response = clean_message(checked)
        return response

    async def on_tool(
        self, context: ToolContext, call: ToolCall, make: Proceed
    ) -> str | Delegation:
        """Make a call through the hooks. Raises what the tool or a hook raises."""
        proceed = make
        for hooks in reversed(self._hooks):
            proceed = _around(hooks, context, proceed)
        return await proceed(call)

    @property
    def follow_ends(self) -> bool:
        """Whether any of the hooks has an `on_turn_committed`."""
        return any(_overrides(hooks, "on_turn_committed") for hooks in self._hooks)

    async def on_turn_committed(self, turn: Turn, end_id: str) -> None:
        """Call all hooks for a stored end.

        Raises:
            HookFailed: One of them raised an error; the others were still called.
            TurnVetoed: The same; there is nothing left to veto.
        """
        failed: AgentAPIError | None = None
        for hooks in self._hooks:
            try:
                await _run(hooks, "on_turn_committed", turn, end_id)
            except (HookFailed, TurnVetoed) as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def on_turn_end(
        self, context: ToolContext, result: TurnResult[Any] | AgentAPIError
    ) -> None:
        """Notify all hooks; raises the same as `on_turn_start`."""
        for hooks in self._hooks:
            await _run(hooks, "on_turn_end", context, result)


def _around(hooks: Hooks, context: ToolContext, proceed: Proceed) -> Proceed:
    async def call_with_hooks(call: ToolCall) -> str | Delegation:
        return await hooks.on_tool(context, call, proceed)

    return call_with_hooks


def _overrides(hooks: Hooks, name: str) -> bool:
    return getattr(Hooks, name) is not getattr(type(hooks), name)


async def _run(hooks: Hooks, name: str, *args: Any) -> Any:
    method = getattr(hooks, name)
    if not _overrides(hooks, name):
        return None
    try:
        if inspect.iscoroutinefunction(method):
            return await method(*args)
        return await run_in_tool_thread(lambda: method(*args))
    except TurnVetoed:
        raise
    except BaseException as error:
        stop_if_asked(error)
        # The error's text may quote users: it goes into the turn, not into a log.
        raise HookFailed(
            f"{type(hooks).__name__}.{name} raised {named(error)}; to end a turn, raise "
            "TurnVetoed; any other error is a bug in the hook"
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
