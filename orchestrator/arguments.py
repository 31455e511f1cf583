"""Checks arguments that a person edited against the schema of the tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from agentapi.errors import InvalidInput

_MOST: Final = 5
"""Faults that one error lists."""


def check_arguments(tool: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a call.

    A schema that cannot be used is not checked here: the tool itself validates its arguments.

    Args:
        tool: Its name.
        schema: JSON schema of its arguments.
        arguments: What it is to be called with.

    Raises:
        InvalidInput: They do not fit; the text lists the faults without the values.
    """
    # Only edited arguments need the library, whose import takes a while.
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # As JSON, which is what the tool gets: a tuple is an array.
    plain = orjson.loads(orjson.dumps(dict(arguments)))
    kind = validator_for(dict(schema))
    try:
        kind.check_schema(dict(schema))
        # The empty registry: a reference to another document is not fetched.
        found = list(kind(dict(schema), registry=Registry()).iter_errors(plain))
    except (SchemaError, Unresolvable):
        return
    faults = sorted({_described(error) for error in found})
    if faults:
        more = f" and {len(faults) - _MOST} more" if len(faults) > _MOST else ""
        raise InvalidInput(
            f"the arguments do not fit the schema of tool {tool!r}: "
            f"{'; '.join(faults[:_MOST])}{more}"
        )


def _described(error: Any) -> str:
    place = ".".join(map(str, error.absolute_path)) or "arguments"
    return f"{place}: {error.validator} must be {orjson.dumps(error.validator_value).decode()}"
