"""Functions that users give as `system_prompt` and `tools`: checked once, called for each turn."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentapi.agents.context_type import ContextType, fits
from agentapi.decoding.shown import shown
from agentapi.errors import (
    AgentAPIError,
    InvalidAgent,
    PromptFailed,
    ProviderUnavailable,
    ToolsFailed,
    TurnVetoed,
)
from agentapi.faults import named, stop_if_asked
from agentapi.tools import BaseTool, ToolSource
from agentapi.tools.context import wanted_context
from agentapi.tools.threads import run_in_tool_thread
from agentapi.turns.context import ContextT, TurnContext

PromptFunction: TypeAlias = Callable[[TurnContext[ContextT]], str | Awaitable[str]]
"""Returns the system prompt of a turn."""

ToolList: TypeAlias = Sequence[BaseTool | ToolSource]

ToolsFunction: TypeAlias = Callable[[TurnContext[ContextT]], ToolList | Awaitable[ToolList]]
"""Returns the tools of a turn."""


def check_prompt(agent: str, prompt: object, context: ContextType[Any] | None) -> None:
    """Check `Agent(system_prompt=...)`.

    Raises:
        InvalidAgent: It is neither text nor a function that can be called with a `TurnContext`.
    """
    if isinstance(prompt, str):
        return
    if not callable(prompt) or inspect.isclass(prompt) or isinstance(prompt, BaseTool):
        raise InvalidAgent(
            f"agent {agent!r}: system_prompt is {shown(prompt)}: expected text, or a function "
            "that takes a TurnContext and returns text"
        )
    check_function(agent, "system_prompt", prompt, context, returns="text")


def as_tools(agent: str, tools: object) -> tuple[Sequence[object], ToolsFunction[Any] | None]:
    """Split `Agent(tools=...)` into a list and a function; one of them is empty.

    Raises:
        InvalidAgent: It is neither a list nor a function.
    """
    # A tool can be called as well, but was meant to be in a list.
    single = isinstance(tools, BaseTool) or inspect.isclass(tools)
    if callable(tools) and not single:
        return (), tools
    if single or isinstance(tools, str) or not isinstance(tools, Iterable):
        raise InvalidAgent(
            f"agent {agent!r}: tools is {shown(tools)}: expected a list of tools, or a function "
            "that takes a TurnContext and returns such a list"
        )
    return tuple(tools), None


def check_function(
    agent: str,
    what: str,
    function: Callable[..., Any],
    context: ContextType[Any] | None,
    *,
    returns: str,
) -> None:
    """Check that a function can be called with the context of a turn.

    Args:
        agent: Name of the agent, for errors.
        what: Name of the argument that was given the function.
        function: The function.
        context: The agent's `context_type`.
        returns: What it must return, for errors.

    Raises:
        InvalidAgent: It takes other arguments, expects another type of context, or is a generator.
    """
    where = f"agent {agent!r}: {what}={shown_function(function)}"
    expected = f"expected a function that takes one TurnContext and returns {returns}"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidAgent(f"{where} is a generator: {expected}")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        # Some functions that are written in C have no signature.
        return
    try:
        bound = signature.bind(None)
    except TypeError as error:
        raise InvalidAgent(
            f"{where} has the parameters {signature} ({error}): {expected}"
        ) from error
    try:
        hints = typing.get_type_hints(_plain_function(function))
    except Exception:
        # Some names exist only for type checkers.
        return
    if hints.get("return", Any) is type(None):
        raise InvalidAgent(f"{where} is declared to return None: {expected}")
    parameter = next(iter(bound.arguments), None)
    _check_annotation(where, hints.get(str(parameter), Any), context)


def _check_annotation(where: str, hint: object, context: ContextType[Any] | None) -> None:
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return
    wanted = wanted_context(hint)
    if wanted is None:
        # A user-defined Protocol or union may be valid; a plain data type is not.
        if hint in (str, int, float, bool, bytes, dict, list) or (
            context is not None and hint == context.kind
        ):
            raise InvalidAgent(
                f"{where} takes a {getattr(hint, '__name__', hint)}: expected a parameter of type "
                "TurnContext; its attribute `context` holds the producer's context"
            )
        return
    check_wanted(where, wanted, context)


def check_wanted(where: str, wanted: Any, context: ContextType[Any] | None) -> None:
    """Check that a function expects its agent's type of context.

    Raises:
        InvalidAgent: It expects another type.
    """
    if not fits(context, wanted):
        name = getattr(wanted, "__name__", wanted)
        has = (
            f"has context_type={getattr(context.kind, '__name__', context.kind)}"
            if context is not None
            else "has no context_type"
        )
        raise InvalidAgent(
            f"{where} expects a context of type {name}, but the agent {has}: declare the same type "
            "in both"
        )


def check_tool_contexts(
    agent: str, tools: Sequence[BaseTool], context: ContextType[Any] | None
) -> None:
    """Check that tools expect the type of context that their agent declares.

    Raises:
        InvalidAgent: One of them expects another type.
    """
    for tool in tools:
        for wanted in tool.context_types:
            check_wanted(f"agent {agent!r}: tool {tool.name!r}", wanted, context)


def shown_function(function: object) -> str:
    """The name of a function, for errors."""
    return str(getattr(function, "__qualname__", None) or shown(function))


def _plain_function(function: Any) -> Any:
    """The function with the annotations: the one inside a partial, or an object's `__call__`."""
    while hasattr(function, "func"):
        function = function.func
    if inspect.isfunction(function) or inspect.ismethod(function):
        return function
    return type(function).__call__


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionCaller:
    """Calls an agent's functions.

    Attributes:
        agent: Name of the agent, for errors.
        context: The context that is passed to the functions.
        timeout: Seconds that a call may take; the wait for a thread does not count.
    """

    agent: str
    context: TurnContext[Any]
    timeout: float

    async def prompt(self, function: PromptFunction[Any]) -> Any:
        """Call a prompt function.

        Raises:
            PromptFailed: It raised an error, or took too long.
        """
        return await self._call("system_prompt", function, PromptFailed)

    async def tools(self, function: ToolsFunction[Any]) -> Any:
        """Call a tools function.

        Raises:
            ToolsFailed: It raised an error, or took too long.
        """
        return await self._call("tools", function, ToolsFailed)

    async def _call(
        self, what: str, function: Callable[[TurnContext[Any]], Any], failure: type[AgentAPIError]
    ) -> Any:
        where = f"agent {self.agent!r}: {what}={shown_function(function)}"
        loop = asyncio.get_running_loop()
        deadline = asyncio.timeout(None)

        def begin() -> None:
            # The turn may have been stopped while it waited for a thread.
            with contextlib.suppress(RuntimeError):
                deadline.reschedule(loop.time() + self.timeout)

        def in_thread() -> Any:
            # The clock starts only now: a worker whose threads are all busy must not fail other
            # turns' prompts.
            loop.call_soon_threadsafe(begin)
            return function(self.context)

        try:
            async with deadline:
                if _is_async(function):
                    begin()
                    result = function(self.context)
                else:
                    # In a thread: it is the user's code and may block.
                    result = await run_in_tool_thread(in_thread)
                return await result if inspect.isawaitable(result) else result
        except (TurnVetoed, ProviderUnavailable):
            # The function ends the turn, or says that another attempt may help.
            raise
        except BaseException as error:
            stop_if_asked(error)
            if isinstance(error, TimeoutError) and deadline.expired():
                raise failure(
                    f"{where} took longer than {self.timeout:g} s: speed it up, or raise "
                    "AGENTAPI_PROMPT_TIMEOUT"
                ) from error
            # The error's text may quote users: it goes into the turn, not into a log.
            raise failure(f"{where} raised {named(error)}") from error


def _is_async(function: Callable[..., Any]) -> bool:
    called = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
