"""Checks arguments that a person edited against the schema of the tool."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import orjson

from agentapi.errors import InvalidInput

_MOST: Final = 5
"""Faults that one error lists, at most."""


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
    # Only edited arguments need it.
    import jsonschema_rs

    # As JSON, which is what the tool gets: a tuple is an array.
    plain = orjson.loads(orjson.dumps(dict(arguments)))
    try:
        # Errors may be logged, so they do not quote the arguments.
        validator = jsonschema_rs.validator_for(
            dict(schema), offline=True, validate_formats=False, mask="the value"
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError):
        return
    faults = [
        f"{'.'.join(map(str, fault.instance_path)) or 'arguments'}: {fault.message}"
        for fault in islice(validator.iter_errors(plain), _MOST)
    ]
    if faults:
        raise InvalidInput(
            f"the arguments do not fit the schema of tool {tool!r}: {'; '.join(faults)}"
        )
