"""Structured output: replies that must match a Python type."""

from __future__ import annotations

import re
from typing import Any, Final, Generic

from pydantic import TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import from_json, to_json

from agentapi.errors import InvalidAgent
from agentapi.providers.base import OutputSpec
from agentapi.turns.model import OutputT

_FENCED: Final = re.compile(r"^\s*```(?:json)?\s*\n(?P<inside>.*)\n\s*```\s*$", re.S)
_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")


class OutputType(Generic[OutputT]):
    """The type of an agent's replies.

    Attributes:
        spec: The type in the form that providers receive.
    """

    def __init__(self, kind: type[OutputT], agent: str) -> None:
        """Read the type's schema.

        Args:
            kind: Anything that pydantic can validate: a model, a dataclass, ``list[int]``.
            agent: Name of the agent, for errors.

        Raises:
            InvalidAgent: The type has no JSON schema.
        """
        name = _NAME.sub("_", getattr(kind, "__name__", "output"))[:64]
        try:
            self._adapter: TypeAdapter[OutputT] = TypeAdapter(kind)
            schema = self._adapter.json_schema()
            # Providers accept only objects at the top level.
            self._wrapped = "properties" not in schema
            if self._wrapped:
                self._wrapper: TypeAdapter[Any] = TypeAdapter(create_model(name, value=(kind, ...)))
                schema = self._wrapper.json_schema()
        except (PydanticUserError, NotImplementedError) as error:
            raise InvalidAgent(
                f"agent {agent!r}: output_type {kind!r} has no JSON schema: {error}; expected a "
                "pydantic model, a dataclass, or a plain type such as list[int]"
            ) from error
        self.spec = OutputSpec(name=name, schema=schema)

    def read(self, text: str) -> tuple[OutputT, str]:
        """Parse a reply; returns its value, and its text without fences and wrapper.

        Raises:
            ValidationError: The reply is not JSON or does not match; safe to show to the model.
        """
        bare = without_fences(text)
        if not self._wrapped:
            return self._adapter.validate_json(bare), bare
        value: OutputT = self._wrapper.validate_json(bare).value
        # From the reply's own JSON, so that `load` accepts exactly what `read` accepted.
        return value, to_json(from_json(bare)["value"]).decode()

    def load(self, text: str) -> OutputT:
        """Parse a text that `read` returned.

        Raises:
            ValidationError: The type has changed since then.
        """
        return self._adapter.validate_json(text)


def without_fences(text: str) -> str:
    """A reply without the Markdown fences that some models put around JSON."""
    fenced = _FENCED.match(text)
    return fenced["inside"] if fenced else text


def explain_output(error: ValidationError) -> str:
    """Describe an invalid reply to the model."""
    problems = "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'reply'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)[:20]
    )
    return (
        f"Your reply does not match the required JSON schema: {problems}. Reply again, with the "
        "JSON only."
    )
