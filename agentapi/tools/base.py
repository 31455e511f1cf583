"""Tools as the agent loop sees them, independent of their implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from agentapi.decoding.plain import clean_text, plain
from agentapi.errors import InvalidAgent, InvalidTool
from agentapi.faults import named, text_of
from agentapi.providers.base import ToolSpec
from agentapi.tools.context import ToolContext
from agentapi.tools.delegation import Delegation
from agentapi.tools.items import unrolled
from agentapi.turns.calls import Verdict


class ToolFailed(Exception):
    """Raise this in a tool to show the model an error with exactly this text."""


class BaseTool:
    """Base of all tools.

    Attributes:
        spec: Name, description and schema for the model.
        idempotent: Whether a call with an unknown outcome may be repeated.
        timeout: Maximum seconds of a call; None for no limit other than the turn's.
        approval_timeout: Seconds to wait for an approval; None for the setting.
        approval_default: The decision when nobody decides in time.
    """

    def __init__(
        self,
        spec: ToolSpec,
        *,
        idempotent: bool = False,
        timeout: float | None = None,
        approval_timeout: float | None = None,
        approval_default: Verdict | str = Verdict.REJECTED,
    ) -> None:
        for what, seconds in (("timeout", timeout), ("approval_timeout", approval_timeout)):
            if seconds is not None and seconds <= 0:
                raise InvalidTool(
                    f"tool {spec.name!r}: {what} is {seconds}, expected seconds above 0"
                )
        if approval_default not in [verdict for verdict in Verdict if verdict.is_default]:
            raise InvalidTool(
                f"tool {spec.name!r}: approval_default is {approval_default!r}, expected "
                "'approved' or 'rejected'"
            )
        self.spec = spec
        self.idempotent = idempotent
        self.timeout = timeout
        self.approval_timeout = approval_timeout
        self.approval_default = Verdict(approval_default)

    @property
    def name(self) -> str:
        """The name that models call it by."""
        return self.spec.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def context_types(self) -> Sequence[Any]:
        """The types of `ToolContext.context` that its functions expect; empty for any type."""
        return ()

    async def needs_approval(self, arguments: Mapping[str, Any], context: ToolContext) -> bool:
        """Whether a person must approve a call with these arguments."""
        return False

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> str | Delegation:
        """Make the call; returns its result as text, or the turns whose replies are the result.

        Raises:
            Exception: The call failed; the model gets the error.
        """
        raise NotImplementedError


class ToolSource(Protocol):
    """A source of more tools, such as an MCP server."""

    @property
    def name(self) -> str:
        """The name, for errors."""
        ...

    async def tools(self) -> Sequence[BaseTool]:
        """Return the current tools. Called before each model call, so implementations should cache.

        Raises:
            ToolServerUnavailable: Trying again may help; the turn does, and parks if necessary.
        """
        ...


class Toolbox:
    """The tools that one model call offers.

    Attributes:
        specs: The tools as the model sees them.
        missing: Names of tools that were offered before a takeover and no longer exist.
    """

    def __init__(self, agent: str, tools: Sequence[BaseTool], missing: Sequence[str] = ()) -> None:
        self.missing = frozenset(missing)
        self._tools: dict[str, BaseTool] = {}
        for tool in tools:
            if tool.name in self._tools:
                # An MCP server may add a tool with a taken name at any time.
                raise InvalidAgent(f"agent {agent!r}: two tools are named {tool.name!r}")
            self._tools[tool.name] = tool
        self.specs: tuple[ToolSpec, ...] = tuple(tool.spec for tool in tools)

    def get(self, name: str) -> BaseTool | None:
        """The tool with that name, if there is one."""
        return self._tools.get(name)


def as_text(result: object) -> str:
    """Convert a tool's result for the model: text unchanged, everything else as JSON.

    Raises:
        Exception: JSON cannot express it, such as bytes that are not UTF-8.
    """
    if isinstance(result, str):
        return clean_text(result)
    result = unrolled(result)
    try:
        return to_json(result, fallback=str).decode()
    except PydanticSerializationError:
        # Probably a lone surrogate in some text inside.
        return to_json(plain(to_jsonable_python(result, fallback=str))).decode()


def explain(error: BaseException) -> str:
    """Describe the error of a call to the model."""
    if isinstance(error, ToolFailed):
        return text_of(error)
    if isinstance(error, ValidationError):
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        return clean_text(f"invalid arguments: {problems}")
    if isinstance(error, TimeoutError) and not text_of(error):
        return "the tool did not answer in time"
    return named(error)
