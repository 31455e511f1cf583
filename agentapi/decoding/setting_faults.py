"""Error texts about invalid settings, for the person who set them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentapi.decoding.shown import shown

_EXPECTED: Final[Mapping[str, str]] = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
}
"""What a setting must be, by the type of pydantic's error. Values of these types are numbers and
words without secrets; other values, such as URLs, are never shown."""

_OWN: Final = "Value error, "
"""The prefix that pydantic adds to the text of our own errors."""


def setting_fault(problem: Mapping[str, Any]) -> str:
    """Describe an error that pydantic found in a setting: what was given and what is expected.

    Args:
        problem: One of `ValidationError.errors()`.
    """
    # Parts of a larger value, such as a table of prices, are named.
    place = "".join(f" [{part}]" for part in problem["loc"][1:])
    expected = _EXPECTED.get(problem["type"])
    if expected is None:
        return f"{place}: {str(problem['msg']).removeprefix(_OWN)}"
    bounds = problem.get("ctx", {}).items()
    words = expected.format_map({name: _plain(value) for name, value in bounds})
    return f"{place} is {shown(problem['input'])}, expected {words}"


def _plain(bound: Any) -> Any:
    """A bound as text, without the fraction that pydantic adds to whole numbers."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
