"""Checks arguments that a person edited against the schema of the tool."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import orjson

from agentapi.decoding.json_schema import CAREFUL, faults_of
from agentapi.errors import InvalidInput

_MOST: Final = 5
"""Maximum number of faults in one error message."""


def check_arguments(tool: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a call.

    An unusable schema is not checked here: the tool itself validates its arguments.

    Args:
        tool: Name of the tool.
        schema: JSON schema of its arguments.
        arguments: The arguments for the call.

    Raises:
        InvalidInput: They do not match; the text lists the faults without the values.
    """
    # Imported here, because only edited arguments need it.
    import jsonschema_rs

    # Validate the JSON form, which the tool receives: a tuple becomes an array.
    plain = orjson.loads(orjson.dumps(dict(arguments)))
    try:
        validator = jsonschema_rs.validator_for(dict(schema), **CAREFUL)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError):
        return
    if faults := list(islice(faults_of(validator, plain, "arguments"), _MOST)):
        raise InvalidInput(
            f"the arguments do not match the schema of tool {tool!r}: {'; '.join(faults)}"
        )
