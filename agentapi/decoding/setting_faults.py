"""What is wrong with a setting, in words for the person who set it."""

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
"""What pydantic's errors of these types expect. Their values are numbers and words that hold no
secrets; values of others, such as URLs, are not shown."""

_OWN: Final = "Value error, "
"""What pydantic puts before the text of our own errors."""


def setting_fault(problem: Mapping[str, Any]) -> str:
    """Describe an error that pydantic found in a setting: what was given and what is expected.

    Args:
        problem: One of `ValidationError.errors()`.
    """
    # Parts of a larger value, such as of a table of prices, are named.
    place = "".join(f" [{part}]" for part in problem["loc"][1:])
    expected = _EXPECTED.get(problem["type"])
    if expected is None:
        return f"{place}: {str(problem['msg']).removeprefix(_OWN)}"
    bounds = problem.get("ctx", {}).items()
    words = expected.format_map({name: _plain(value) for name, value in bounds})
    return f"{place} is {shown(problem['input'])}, expected {words}"


def _plain(bound: Any) -> Any:
    """A bound without the fraction that pydantic gives to whole numbers."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
