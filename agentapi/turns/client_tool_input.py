"""Checks of client tools, before a turn that brings them is accepted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

import orjson

from agentapi.decoding.shown import shown
from agentapi.errors import ClientToolRefused
from agentapi.turns.client_tools import ClientTool, ClientTools, ToolChoice

MAX_CLIENT_TOOLS: Final = 128
"""Maximum functions of one turn."""

MAX_CLIENT_TOOLS_BYTES: Final = 131_072
"""Maximum size of all functions of a turn together, as JSON."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FIELDS: Final = frozenset({"name", "description", "parameters", "strict"})

NewClientTools: TypeAlias = ClientTools | Iterable[ClientTool | Mapping[str, Any]]
"""Client tools as callers pass them: each a `ClientTool`, or a dict with its fields."""


def client_tools_of(value: NewClientTools | None) -> ClientTools | None:
    """Check client tools; None if there are none.

    Raises:
        ClientToolRefused: They are not valid; says which one, and why.
    """
    if value is None:
        return None
    given = value if isinstance(value, ClientTools) else ClientTools(tools=tuple(map(_tool, value)))
    if not given.tools:
        return None
    tools = tuple(_checked(tool, number) for number, tool in enumerate(given.tools))
    names = [tool.name for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ClientToolRefused(f"two client tools are named {twice[0]!r}: rename one of them")
    if len(tools) > MAX_CLIENT_TOOLS:
        raise ClientToolRefused(
            f"there are {len(tools)} client tools, the limit is {MAX_CLIENT_TOOLS}: leave some out"
        )
    for name in given.only:
        if name not in names:
            raise ClientToolRefused(
                f"tool_choice names {shown(name)}, which is not among the client tools: name one "
                "of them, or omit the choice"
            )
    if given.timeout is not None and not 0 < given.timeout < 1e9:
        raise ClientToolRefused(
            f"the timeout of the client tools is {shown(given.timeout)}: expected seconds above 0"
        )
    made = replace(given, tools=tools, choice=ToolChoice(given.choice), only=tuple(given.only))
    size = len(made.to_json())
    if size > MAX_CLIENT_TOOLS_BYTES:
        raise ClientToolRefused(
            f"the client tools have {size} bytes as JSON, the limit is {MAX_CLIENT_TOOLS_BYTES}: "
            "shorten their descriptions or schemas"
        )
    return made


def _tool(value: ClientTool | Mapping[str, Any]) -> ClientTool:
    if isinstance(value, ClientTool):
        return value
    if not isinstance(value, Mapping) or not value.keys() <= _FIELDS or "name" not in value:
        raise ClientToolRefused(
            "a client tool is not valid: expected a ClientTool, or a dict with a name and optional "
            "description, parameters and strict"
        )
    return ClientTool(**value)


def _checked(tool: ClientTool, number: int) -> ClientTool:
    where = f"client tool {number}"
    if not isinstance(tool.name, str) or not _NAME.fullmatch(tool.name):
        raise ClientToolRefused(
            f"{where} has the name {shown(tool.name)}: expected 1 to 64 letters, digits, "
            "underscores and dashes"
        )
    where = f"client tool {tool.name!r}"
    if not isinstance(tool.description, str) or not isinstance(tool.strict, bool):
        raise ClientToolRefused(
            f"{where}: expected text as description, and True or False as strict"
        )
    if not isinstance(tool.parameters, Mapping):
        raise ClientToolRefused(f"{where}: parameters are not a JSON schema (an object)")
    # Providers refuse a function whose arguments are not an object.
    schema = dict(tool.parameters) or {"type": "object", "properties": {}}
    if schema.get("type") != "object":
        raise ClientToolRefused(
            f"{where}: the type of its parameters is {shown(schema.get('type'))}, expected 'object'"
        )
    try:
        orjson.dumps(schema)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise ClientToolRefused(f"{where}: its parameters are not JSON: {error}") from error
    return replace(tool, parameters=schema)
