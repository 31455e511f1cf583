"""A JSON schema as OpenAI's strict mode takes it (platform.openai.com, "Structured Outputs").

Strict mode knows a part of JSON Schema and refuses the request for a word that it does not know.
What only narrows values is left out: replies are validated here all the same. What shapes them
cannot be, and the schema is not strict then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_KEPT: Final = frozenset(
    {"type", "title", "description", "enum", "const", "pattern", "format", "multipleOf"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"}
)
_LEFT_OUT: Final = frozenset(
    {"default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator", "$comment"}
    | {"minLength", "maxLength", "uniqueItems", "minProperties", "maxProperties"}
    | {"contentEncoding", "contentMediaType", "contentSchema"}
)
_NESTED: Final = frozenset(
    {"$ref", "$defs", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf"}
)
_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_LOOK_AROUND: Final = re.compile(r"\(\?<?[=!]")


class _CannotBeSaid(Exception):
    """The schema has a shape that strict mode does not know."""


def strict(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema in strict mode's words, or None when it cannot be said so.

    Args:
        schema: Of an object, as pydantic makes it.
    """
    try:
        return _strict(schema)
    except _CannotBeSaid:
        return None


def _strict(node: object) -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node.keys() <= _KEPT | _LEFT_OUT | _NESTED:
        raise _CannotBeSaid
    made = {key: value for key, value in node.items() if key in _KEPT}
    if made.get("format") not in _FORMATS:
        made.pop("format", None)
    if _LOOK_AROUND.search(made.get("pattern", "")):
        del made["pattern"]
    if "properties" in node:
        made |= _object(node)
    elif node.get("type") == "object":
        # Of free keys.
        raise _CannotBeSaid
    if "items" in node:
        made["items"] = _strict(node["items"])
    # Strict mode does not know oneOf; which of them it is, is found out here.
    if branches := [*node.get("anyOf", ()), *node.get("oneOf", ())]:
        made["anyOf"] = [_strict(branch) for branch in branches]
    if "$ref" in node:
        # A reference stands alone, so what is said beside it is said around it.
        made = {**made, "anyOf": [{"$ref": node["$ref"]}]} if made else {"$ref": node["$ref"]}
    if not made.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
        # Of anything.
        raise _CannotBeSaid
    if made.get("type") == "array" and "items" not in made:
        raise _CannotBeSaid
    if "$defs" in node:
        made["$defs"] = {name: _strict(inner) for name, inner in node["$defs"].items()}
    return made


def _object(node: Mapping[str, Any]) -> dict[str, Any]:
    """Every property is required, and no others are allowed."""
    if node.get("additionalProperties"):
        raise _CannotBeSaid
    return {
        "properties": {name: _strict(inner) for name, inner in node["properties"].items()},
        "required": list(node["properties"]),
        "additionalProperties": False,
    }
