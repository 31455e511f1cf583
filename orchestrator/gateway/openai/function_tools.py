"""Reads a request's functions: `tools`, `tool_choice` and `parallel_tool_calls`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from pydantic import Field

from agentapi.errors import ClientToolRefused
from agentapi.turns import ClientTool, ClientTools, LastWord, ToolChoice
from agentapi.turns.client_tool_input import client_tools_of
from orchestrator.gateway.http.errors import InvalidRequest, UnsupportedParameter
from orchestrator.gateway.openai.items import SERVER_LABEL

Tools = Annotated[
    list[dict[str, Any]],
    Field(
        max_length=129,
        description="Functions that the client runs, in addition to the agent's own tools.",
    ),
]
Choice = Annotated[
    str | dict[str, Any],
    Field(description="`auto`, `none`, `required`, a function, or `allowed_tools`."),
]

_FUNCTION_FIELDS: Final = frozenset({"type", "name", "description", "parameters", "strict"})


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedTools:
    """The tool parameters of a request.

    Attributes:
        client: The client's functions; None if there are none.
        approvals_elsewhere: Whether others than the client decide about calls of the agent's own
            tools.
    """

    client: ClientTools | None = None
    approvals_elsewhere: bool = False


def tools_of(
    tools: Sequence[Mapping[str, Any]] | None,
    choice: str | Mapping[str, Any] | None,
    parallel: bool | None,
    *,
    nested: bool,
) -> AskedTools:
    """Read the tool parameters of a request.

    Args:
        tools: The parameter `tools`.
        choice: The parameter `tool_choice`.
        parallel: The parameter `parallel_tool_calls`.
        nested: Whether functions are nested in an object, as in chat completions.

    Raises:
        InvalidRequest: A parameter is not valid; the error names the place.
    """
    found: list[ClientTool] = []
    elsewhere = False
    for number, tool in enumerate(tools or ()):
        place = f"tools[{number}]"
        if not nested and tool.get("type") == "mcp":
            elsewhere = _own_tools(tool, place)
        else:
            found.append(_function(tool, place, nested=nested))
    mode, only = _choice(choice, nested=nested)
    if not found:
        if mode is ToolChoice.REQUIRED:
            raise InvalidRequest(
                "tool_choice requires a call, but the request has no functions: only the agent "
                "decides about its own tools",
                param="tool_choice",
            )
        return AskedTools(approvals_elsewhere=elsewhere)
    made = ClientTools(
        tools=tuple(found),
        choice=mode,
        only=only,
        parallel=parallel is not False,
        last_word=LastWord.WHEN_LATE,
    )
    try:
        return AskedTools(client=client_tools_of(made), approvals_elsewhere=elsewhere)
    except ClientToolRefused as refusal:
        raise InvalidRequest(str(refusal), param="tools") from None


def ending_at_once(asked: AskedTools) -> AskedTools:
    """For chat completions: let a turn that must make a call end with that call.

    Clients demand calls to get structured output, and do not answer them. If a client does answer,
    its messages contain everything needed to continue.
    """
    client = asked.client
    if client is None or client.choice is not ToolChoice.REQUIRED:
        return asked
    return replace(asked, client=replace(client, last_word=LastWord.ALWAYS))


def _own_tools(tool: Mapping[str, Any], place: str) -> bool:
    """Read the parameters of the agent's own tools; returns whether others approve their calls."""
    if tool.get("server_label") != SERVER_LABEL:
        raise UnsupportedParameter(
            f"{place} is an MCP server: the agent's definition names its MCP servers. The "
            f"server_label {SERVER_LABEL!r} stands for the agent's own tools",
            param=f"{place}.server_label",
        )
    match tool.get("require_approval"):
        case None | "always":
            return False
        case "never":
            return True
        case _:
            raise UnsupportedParameter(
                f"{place}.require_approval: expected 'always' (this client decides) or 'never' "
                "(others decide); the agent's definition says which calls need approval",
                param=f"{place}.require_approval",
            )


def _function(tool: Mapping[str, Any], place: str, *, nested: bool) -> ClientTool:
    kind = tool.get("type")
    if kind != "function":
        raise UnsupportedParameter(
            f"{place} is a tool of type {kind!r}: a request can only contain functions; all other "
            "tools belong in the agent's definition",
            param=f"{place}.type",
        )
    fields: Any = tool.get("function") if nested else tool
    if not isinstance(fields, Mapping):
        raise InvalidRequest(f"{place}.function is not an object", param=f"{place}.function")
    for name, value in fields.items():
        if name not in _FUNCTION_FIELDS and value is not None:
            raise UnsupportedParameter(
                f"{place}.{name} is not supported: omit it", param=f"{place}.{name}"
            )
    parameters = fields.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise InvalidRequest(f"{place}.parameters is not an object", param=f"{place}.parameters")
    description, strict = fields.get("description"), fields.get("strict")
    if not isinstance(fields.get("name"), str):
        raise InvalidRequest(f"{place}.name is not text", param=f"{place}.name")
    if not isinstance(description, str | None) or not isinstance(strict, bool | None):
        raise InvalidRequest(
            f"{place}: expected text as description, and true or false as strict", param=place
        )
    return ClientTool(
        name=fields["name"],
        description=description or "",
        parameters=dict(parameters or {}),
        strict=bool(strict),
    )


def _choice(
    choice: str | Mapping[str, Any] | None, *, nested: bool
) -> tuple[ToolChoice, tuple[str, ...]]:
    if choice is None:
        return ToolChoice.AUTO, ()
    if isinstance(choice, str):
        if choice in tuple(ToolChoice):
            return ToolChoice(choice), ()
    elif choice.get("type") == "function":
        inner = choice.get("function") if nested else choice
        return ToolChoice.REQUIRED, (_name(inner, "tool_choice"),)
    elif choice.get("type") == "allowed_tools":
        allowed: Any = choice.get("allowed_tools") if nested else choice
        listed = allowed.get("tools") if isinstance(allowed, Mapping) else None
        if isinstance(listed, list) and allowed.get("mode") in ("auto", "required"):
            tools = [t.get("function", t) if isinstance(t, Mapping) else t for t in listed]
            names = tuple(_name(tool, "tool_choice.tools") for tool in tools)
            return ToolChoice(allowed["mode"]), names
    raise InvalidRequest(
        "tool_choice is not valid: expected 'auto', 'none', 'required', one of the request's "
        "functions, or allowed_tools",
        param="tool_choice",
    )


def _name(value: object, place: str) -> str:
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        raise InvalidRequest(f"{place} names no function", param="tool_choice")
    return name


def shown_tools(client: ClientTools | None) -> dict[str, Any]:
    """The fields of a response that repeat its request's tool parameters."""
    if client is None or not client.tools:
        return {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
    choice: Any = client.choice.value
    if client.only and client.choice is ToolChoice.REQUIRED and len(client.only) == 1:
        choice = {"type": "function", "name": client.only[0]}
    elif client.only:
        names = [{"type": "function", "name": name} for name in client.only]
        choice = {"type": "allowed_tools", "mode": client.choice.value, "tools": names}
    tools = [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description or None,
            "parameters": dict(tool.parameters),
            "strict": tool.strict,
        }
        for tool in client.tools
    ]
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": client.parallel}
