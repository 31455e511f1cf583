"""Converts a JSON schema for OpenAI's strict mode (platform.openai.com, "Structured Outputs").

Strict mode supports a subset of JSON Schema and refuses requests with unknown keywords. Keywords
that only narrow values are left out, since replies are validated here anyway. Keywords that
determine the shape cannot be left out; such a schema is sent without strict mode.
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


class _NotStrict(Exception):
    """The schema has a shape that strict mode does not support."""


def strict(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Convert a schema to strict mode; None if strict mode cannot express it.

    Args:
        schema: The schema of an object, as pydantic generates it.
    """
    try:
        return _strict(schema)
    except _NotStrict:
        return None


def _strict(node: object) -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node.keys() <= _KEPT | _LEFT_OUT | _NESTED:
        raise _NotStrict
    made = {key: value for key, value in node.items() if key in _KEPT}
    if made.get("format") not in _FORMATS:
        made.pop("format", None)
    if _LOOK_AROUND.search(made.get("pattern", "")):
        del made["pattern"]
    if "properties" in node:
        made |= _object(node)
    elif node.get("type") == "object":
        # An object with arbitrary keys.
        raise _NotStrict
    if "items" in node:
        made["items"] = _strict(node["items"])
    # Strict mode does not support oneOf; the validation of the reply picks the branch.
    if branches := [*node.get("anyOf", ()), *node.get("oneOf", ())]:
        made["anyOf"] = [_strict(branch) for branch in branches]
    if "$ref" in node:
        # A reference must stand alone, so its other keywords are moved around it.
        made = {**made, "anyOf": [{"$ref": node["$ref"]}]} if made else {"$ref": node["$ref"]}
    if not made.keys() & {"type", "enum", "const", "anyOf", "$ref"}:
        # Any value would be valid.
        raise _NotStrict
    if made.get("type") == "array" and "items" not in made:
        raise _NotStrict
    if "$defs" in node:
        made["$defs"] = {name: _strict(inner) for name, inner in node["$defs"].items()}
    return made


def _object(node: Mapping[str, Any]) -> dict[str, Any]:
    """Every property is required, and no others are allowed."""
    if node.get("additionalProperties"):
        raise _NotStrict
    return {
        "properties": {name: _strict(inner) for name, inner in node["properties"].items()},
        "required": list(node["properties"]),
        "additionalProperties": False,
    }
