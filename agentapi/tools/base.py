"""What every tool is to the agent loop, whatever is behind it."""

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
    """Raise it in a tool to tell the model something as an error, in just these words."""


class BaseTool:
    """A tool as the loop sees it.

    Attributes:
        spec: What the model is told.
        idempotent: Whether a call whose outcome is unknown may be made again.
        timeout: Seconds a call may take, or None for as long as the turn.
        approval_timeout: Seconds to wait for an approval; None for as long as the setting says.
        approval_default: The decision when nobody decided in time.
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
        if approval_default not in tuple(Verdict):
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
        """The name by which a model calls it."""
        return self.spec.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    async def needs_approval(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments may be made only when a person says so."""
        return False

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> str | Delegation:
        """Make the call; its result as text, or the turns whose replies are the result.

        Raises:
            Exception: Whatever goes wrong; the model is told.
        """
        raise NotImplementedError


class ToolSource(Protocol):
    """Where more tools come from, such as a server that is asked for them."""

    @property
    def name(self) -> str:
        """For errors."""
        ...

    async def tools(self) -> Sequence[BaseTool]:
        """Its tools as they are now; called before each model call, so it should remember.

        Raises:
            ToolServerUnavailable: Trying again may help; the turn does, and parks if it must.
        """
        ...


class Toolbox:
    """The tools of an agent at one model call."""

    def __init__(self, agent: str, tools: Sequence[BaseTool]) -> None:
        self._tools: dict[str, BaseTool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise InvalidAgent(f"agent {agent!r}: two tools are named {tool.name!r}")
            self._tools[tool.name] = tool
        self.specs: tuple[ToolSpec, ...] = tuple(tool.spec for tool in tools)

    def get(self, name: str) -> BaseTool | None:
        """The tool of that name."""
        return self._tools.get(name)


def as_text(result: object) -> str:
    """A tool's result as the model gets it: text as it is, all else as JSON.

    Raises:
        Exception: It cannot be said in JSON, such as bytes that are no text.
    """
    if isinstance(result, str):
        return clean_text(result)
    result = unrolled(result)
    try:
        return to_json(result, fallback=str).decode()
    except PydanticSerializationError:
        # Text inside it is half a character, perhaps.
        return to_json(plain(to_jsonable_python(result, fallback=str))).decode()


def explain(error: BaseException) -> str:
    """What a model is told about a call that raised."""
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
