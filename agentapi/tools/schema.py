"""Builds a JSON schema from a function's signature and docstring, with pydantic."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError

from agentapi.errors import InvalidTool
from agentapi.tools.context import ANY_CONTEXT, wanted_context


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """The parameters of a tool.

    Attributes:
        description: The docstring's text, without its list of arguments.
        model: Validates the arguments.
        context_parameter: Name of the `ToolContext` parameter, or None.
        context_type: The type of the context that this parameter wants.
    """

    description: str
    model: type[BaseModel]
    context_parameter: str | None
    context_type: Any = ANY_CONTEXT


def read_signature(function: Callable[..., Any], name: str) -> Signature:
    """Read a function's parameters, their types, defaults and descriptions.

    Raises:
        InvalidTool: A parameter has no type, or a type without a JSON schema.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise InvalidTool(
            f"tool {name!r}: its annotations cannot be read ({error}); "
            "expected types that can be imported at module level"
        ) from error
    docs = docstring_parser.parse(inspect.getdoc(function) or "")
    texts = {param.arg_name: param.description for param in docs.params}
    fields: dict[str, Any] = {}
    context_parameter: str | None = None
    context_type: object = ANY_CONTEXT
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name)
        wanted = wanted_context(annotation)
        if wanted is not None:
            context_parameter, context_type = parameter.name, wanted
            continue
        fields[parameter.name] = _field(name, parameter, annotation, texts.get(parameter.name))
    return Signature(
        description=(docs.description or "").strip(),
        model=_build(name, fields),
        context_parameter=context_parameter,
        context_type=context_type,
    )


def _field(
    tool: str, parameter: inspect.Parameter, annotation: Any, description: str | None
) -> tuple[Any, Any]:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise InvalidTool(
            f"tool {tool!r}: parameter {parameter} has no schema; expected named parameters only"
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise InvalidTool(
            f"tool {tool!r}: parameter {parameter.name!r} is positional-only; "
            "expected a parameter that can be passed by name"
        )
    if annotation is None:
        raise InvalidTool(
            f"tool {tool!r}: parameter {parameter.name!r} has no type; "
            f"annotate it, for example `{parameter.name}: str`"
        )
    default = ... if parameter.default is parameter.empty else parameter.default
    return annotation, Field(default, description=description)


def _build(name: str, fields: dict[str, Any]) -> type[BaseModel]:
    try:
        model: type[BaseModel] = create_model(
            f"{name}_arguments",
            __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False),
            **fields,
        )
        model.model_json_schema()
    except (PydanticUserError, NameError, TypeError) as error:
        raise InvalidTool(
            f"tool {name!r}: its parameters have no JSON schema: {str(error).splitlines()[0]}"
        ) from error
    return model


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of the arguments, without the titles, which only cost tokens."""
    schema = model.model_json_schema()
    schema.pop("title", None)
    for value in schema.get("properties", {}).values():
        value.pop("title", None)
    schema.setdefault("properties", {})
    return schema
