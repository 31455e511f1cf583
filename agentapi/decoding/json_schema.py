"""Checks values against JSON schemas. Faults may be stored and logged, so they quote no value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

CAREFUL: Final[dict[str, Any]] = {"offline": True, "validate_formats": False, "mask": "the value"}
"""How validators of jsonschema-rs are made: they fetch nothing, and their errors quote nothing."""


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
        value: As it is in JSON: no tuples, for example.
        whole: What the value is called.
    """
    for fault in validator.iter_errors(value):
        place = ".".join(map(str, fault.instance_path)) or whole
        yield f"{place}: {fault.message}"
