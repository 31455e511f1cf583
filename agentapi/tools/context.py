"""What a tool can learn about the turn that calls it."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from agentapi.turns.context import ContextT, TurnContext


@dataclass(frozen=True, kw_only=True)
class ToolContext(TurnContext[ContextT]):
    """The turn and the call, for tools that declare a parameter of this type, and for hooks.

    The model never sees it. ``ToolContext[MyContext]`` declares the type of `context`.

    Attributes:
        call_id: The model's id of this call.
    """

    call_id: str = ""

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of this call: pass it to services that accept one."""
        return f"{self.turn_id}:{self.call_id}"


ANY_CONTEXT: Final = Any
"""The context type of a function that does not declare one."""


def wanted_context(annotation: object) -> object | None:
    """The type that an annotation such as ``ToolContext[MyContext]`` gives to the context.

    Returns:
        The type, `ANY_CONTEXT` for a bare ``ToolContext``; None for other annotations.
    """
    kind = typing.get_origin(annotation) or annotation
    if kind not in (ToolContext, TurnContext):
        return None
    inside = typing.get_args(annotation)
    return none_type(inside[0]) if inside else ANY_CONTEXT


def none_type(kind: Any) -> Any:
    """The type itself; for None, the type of None."""
    return type(None) if kind is None else kind


def context_parameter(function: Callable[..., Any]) -> tuple[str | None, object]:
    """A function's parameter that is annotated `ToolContext`, if its types are known.

    Returns:
        Its name, or None without such a parameter; and the type of context that it expects.
    """
    try:
        hints = typing.get_type_hints(function)
    except Exception:
        # Some names exist only for type checkers.
        return None, ANY_CONTEXT
    for name, hint in hints.items():
        wanted = wanted_context(hint)
        if name != "return" and wanted is not None:
            return name, wanted
    return None, ANY_CONTEXT
