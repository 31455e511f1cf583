"""Structured output: a Python type as what a model must reply with."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Final, Generic

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from agentapi.errors import InvalidAgent
from agentapi.providers.base import OutputSpec
from agentapi.turns.model import OutputT

_FENCED: Final = re.compile(r"^\s*```(?:json)?\s*\n(?P<inside>.*)\n\s*```\s*$", re.S)
_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")
_VALUE: Final = "value"


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
        try:
            self._adapter: TypeAdapter[OutputT] = TypeAdapter(kind)
            schema = self._adapter.json_schema()
        except (PydanticUserError, NotImplementedError) as error:
            raise InvalidAgent(
                f"agent {agent!r}: output_type {kind!r} has no JSON schema: {error}; expected a "
                "pydantic model, a dataclass, or a plain type such as list[int]"
            ) from error
        # Providers take objects only.
        self._wrapped = "properties" not in schema
        if self._wrapped:
            definitions = schema.pop("$defs", None)
            schema = {"type": "object", "properties": {_VALUE: schema}, "required": [_VALUE]}
            if definitions:
                schema["$defs"] = definitions
        name = _NAME.sub("_", getattr(kind, "__name__", "output"))[:64]
        self.spec = OutputSpec(name=name, schema=schema, strict_schema=strict(schema))

    def read(self, text: str) -> tuple[OutputT, str]:
        """The value of a reply, and its text without what only providers need.

        Raises:
            ValidationError: It is no JSON, or does not fit; fit for the model.
        """
        fenced = _FENCED.match(text)
        bare = fenced["inside"] if fenced else text
        if not self._wrapped:
            return self._adapter.validate_json(bare), bare
        wrapper = TypeAdapter(dict[str, Any]).validate_json(bare)
        value = self._adapter.validate_python(wrapper.get(_VALUE), strict=None)
        return value, self._adapter.dump_json(value).decode()

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


def strict(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema as OpenAI's strict mode wants it, or None when it cannot be said so.

    Every property is required and no others are allowed (platform.openai.com, "Structured
    Outputs", supported schemas); objects with free keys cannot be said.
    """
    made = copy.deepcopy(dict(schema))
    return made if _make_strict(made) else None


def _make_strict(node: Any) -> bool:
    if isinstance(node, list):
        return all(_make_strict(item) for item in node)
    if not isinstance(node, dict):
        return True
    node.pop("default", None)
    if "properties" in node:
        if node.get("additionalProperties"):
            return False
        node["additionalProperties"] = False
        node["required"] = list(node["properties"])
        inner = list(node["properties"].values())
    elif node.get("type") == "object":
        return False
    else:
        inner = []
    if "oneOf" in node or "prefixItems" in node:
        return False
    inner += [node[key] for key in ("items", "anyOf", "allOf") if key in node]
    inner += list(node.get("$defs", {}).values())
    return all(_make_strict(item) for item in inner)
