"""Checks values against JSON schemas. Faults may be stored and logged, so they quote no values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

CAREFUL: Final[dict[str, Any]] = {"offline": True, "validate_formats": False, "mask": "the value"}
"""Options of jsonschema-rs validators: they fetch no references, and their errors quote no
values."""


class Fault(Protocol):
    """An error of a validator."""

    @property
    def instance_path(self) -> list[str | int]:
        """Where the value does not match."""
        ...

    @property
    def message(self) -> str:
        """Why."""
        ...


class Validator(Protocol):
    """A validator of jsonschema-rs, made with `CAREFUL`."""

    def iter_errors(self, instance: Any) -> Iterator[Fault]:
        """The faults of a value."""
        ...


def faults_of(validator: Validator, value: Any, whole: str) -> Iterator[str]:
    """Each fault of a value, with its place.

    Args:
        validator: Made with `CAREFUL`.
        value: A value of JSON types: no tuples, for example.
        whole: The name of the whole value in faults.
    """
    for fault in validator.iter_errors(value):
        place = ".".join(map(str, fault.instance_path)) or whole
        yield f"{place}: {fault.message}"
