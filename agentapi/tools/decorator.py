"""`@tool`: a function that a model may call."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

from pydantic import ValidationError

from agentapi.errors import InvalidTool
from agentapi.faults import stop_if_asked
from agentapi.providers.base import ToolSpec
from agentapi.tools.base import BaseTool, as_text
from agentapi.tools.context import ANY_CONTEXT, ToolContext, context_parameter
from agentapi.tools.delegation import Delegation, as_delegation
from agentapi.tools.items import gathered, unrolled
from agentapi.tools.schema import json_schema, read_signature
from agentapi.tools.threads import run_in_tool_thread
from agentapi.turns.calls import Verdict

P = ParamSpec("P")
R = TypeVar("R")

Approval: TypeAlias = bool | Callable[..., bool]
"""Which calls need approval: all, none, or those for which a function returns true."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")


class Tool(BaseTool, Generic[P, R]):
    """A function with a name, a description and a schema. It can still be called directly."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
        requires_approval: Approval = False,
        approval_timeout: float | None = None,
        approval_default: Verdict | str = Verdict.REJECTED,
    ) -> None:
        self.function = function
        self._requires_approval = requires_approval
        self._deciders_context, wanted_by_decider = (
            context_parameter(requires_approval)
            if callable(requires_approval)
            else (None, ANY_CONTEXT)
        )
        self.__name__: str = name or str(getattr(function, "__name__", ""))
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        if not _NAME.fullmatch(self.__name__):
            raise InvalidTool(
                f"{self.__name__!r} is not a valid tool name: expected a letter or underscore, "
                "then at most 63 letters, digits, underscores or dashes; pass @tool(name=...)"
            )
        signature = read_signature(function, self.__name__)
        self._model = signature.model
        self._context_parameter = signature.context_parameter
        self._context_types = (signature.context_type, wanted_by_decider)
        spec = ToolSpec(
            name=self.__name__,
            description=description if description is not None else signature.description,
            parameters=json_schema(signature.model),
        )
        super().__init__(
            spec,
            idempotent=idempotent,
            timeout=timeout,
            approval_timeout=approval_timeout,
            approval_default=approval_default,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, without validation."""
        return self.function(*args, **kwargs)

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the model's arguments to the function's types.

        Raises:
            ValidationError: They do not match the schema; safe to show to the model.
        """
        model = self._model.model_validate(dict(arguments))
        return {name: getattr(model, name) for name in type(model).model_fields}

    @property
    def context_types(self) -> Sequence[Any]:
        """See `BaseTool.context_types`."""
        return self._context_types

    async def needs_approval(self, arguments: Mapping[str, Any], context: ToolContext) -> bool:
        """Whether a person must approve a call with these arguments.

        If the deciding function raises, the call needs approval. A call with invalid arguments does
        not, because it will not be made.
        """
        if not callable(self._requires_approval):
            return self._requires_approval
        predicate = self._requires_approval
        try:
            values = self.validate(arguments)
        except ValidationError:
            return False
        try:
            names = inspect.signature(predicate).parameters
            asked = {name: value for name, value in values.items() if name in names}
            if self._deciders_context is not None:
                asked[self._deciders_context] = context
            # In a thread: it is the user's code and may block.
            return bool(await run_in_tool_thread(lambda: predicate(**asked)))
        except BaseException as error:
            stop_if_asked(error)
            return True

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> str | Delegation:
        """Validate the arguments and call the function; returns its result as text or as turns.

        A synchronous function runs in a thread. After a timeout the caller continues immediately;
        the thread itself cannot be stopped and ends when the function returns.

        Raises:
            ValidationError: The arguments do not match the schema.
            TimeoutError: The call took longer than `timeout`.
            Exception: Whatever the function raises.
        """
        values = self.validate(arguments)
        if self._context_parameter is not None:
            values[self._context_parameter] = context
        async with asyncio.timeout(self.timeout):
            return await self._call(values)

    async def _call(self, values: dict[str, Any]) -> str | Delegation:
        function = cast("Callable[..., Any]", self.function)
        if inspect.iscoroutinefunction(function):
            result = await function(**values)
        else:
            # Converted to text in the thread too: large results must not block the event loop.
            result = await run_in_tool_thread(lambda: _given(function(**values)))
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, AsyncIterator):
            result = await gathered(result)
        # A generator's own code runs only while it is read, so it is read in a thread too.
        elif isinstance(result, Iterator):
            result = await run_in_tool_thread(partial(_given, result))
        return cast("str | Delegation", _given(result))


def _given(result: Any) -> Any:
    """Convert a result to text or turns; leave what still has to be awaited unchanged."""
    if inspect.isawaitable(result) or isinstance(result, AsyncIterator | Delegation):
        return result
    # A generator may yield turns as well.
    result = unrolled(result) if isinstance(result, Iterator) else result
    return as_delegation(result) or as_text(result)


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    idempotent: bool = False,
    requires_approval: Approval = False,
    approval_timeout: float | None = None,
    approval_default: Verdict | str = Verdict.REJECTED,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    idempotent: bool = False,
    requires_approval: Approval = False,
    approval_timeout: float | None = None,
    approval_default: Verdict | str = Verdict.REJECTED,
) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:
    """Turn a function, synchronous or asynchronous, into a tool that models can call.

    The schema comes from its annotations, the descriptions from its docstring (Google, NumPy or
    reST style). The runtime fills in a parameter annotated `ToolContext`.

    Args:
        function: The function, when used as ``@tool`` without arguments.
        name: Its name for the model; the function's own when not given.
        description: What it does, shown to the model; the docstring's text when not given.
        timeout: Seconds a call may take, above 0; after that the model gets a timeout error.
        idempotent: Whether it is safe to repeat the same call after a crash. If not, the model
            is told that the outcome of an interrupted call is unknown.
        requires_approval: Whether a person must approve a call: True, or a function that gets
            the arguments of the call that its parameters name, and the `ToolContext` if one is
            annotated so. The turn waits for the decision without occupying a worker
            (`TurnHandle.approve`).
        approval_timeout: Seconds to wait for the decision, above 0; the setting when not given.
        approval_default: The decision when nobody decides in time: ``"rejected"`` or
            ``"approved"``.

    Raises:
        InvalidTool: The function has no usable name or schema.
    """

    def wrap(wrapped: Callable[P, R]) -> Tool[P, R]:
        return Tool(
            wrapped,
            name=name,
            description=description,
            timeout=timeout,
            idempotent=idempotent,
            requires_approval=requires_approval,
            approval_timeout=approval_timeout,
            approval_default=approval_default,
        )

    return wrap if function is None else wrap(function)
