"""Structured output: a Python type as what a model must reply with."""

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
    """What a reply must be.

    Attributes:
        spec: What the provider is told.
    """

    def __init__(self, kind: type[OutputT], agent: str) -> None:
        """Read the type's schema.

        Args:
            kind: Anything that pydantic can validate: a model, a dataclass, ``list[int]``.
            agent: Name of the agent, for the error.

        Raises:
            InvalidAgent: The type has no JSON schema.
        """
        name = _NAME.sub("_", getattr(kind, "__name__", "output"))[:64]
        try:
            self._adapter: TypeAdapter[OutputT] = TypeAdapter(kind)
            schema = self._adapter.json_schema()
            # Providers take objects only.
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
        """The value of a reply, and its text without what only providers need.

        Raises:
            ValidationError: It is no JSON, or does not fit; fit for the model.
        """
        fenced = _FENCED.match(text)
        bare = fenced["inside"] if fenced else text
        if not self._wrapped:
            return self._adapter.validate_json(bare), bare
        value: OutputT = self._wrapper.validate_json(bare).value
        # As the model said it, so that `load` reads it as `read` did.
        return value, to_json(from_json(bare)["value"]).decode()

    def load(self, text: str) -> OutputT:
        """The value of a text that `read` gave.

        Raises:
            ValidationError: The type is another one by now.
        """
        return self._adapter.validate_json(text)


def explain_output(error: ValidationError) -> str:
    """What a model is told about a reply that does not fit."""
    problems = "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'reply'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)[:20]
    )
    return (
        f"Your reply does not fit the required JSON schema: {problems}. Reply again, with the "
        "JSON only."
    )
