"""Reads stored records of this release, of other releases, or of unknown origin.

Releases read records that older and newer releases wrote. Unknown fields are ignored. A record in a
newer format, or an unreadable one, always raises the same clear error.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import Field
from functools import cache
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    Final,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from agentapi.errors import UnreadableRecord

PROTOCOL: Final = 1
"""Version of the turn protocol: the format of turns, their steps, and related records."""


class _Record(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


R = TypeVar("R", bound=_Record)


def record_of(kind: type[R], data: Mapping[str, Any]) -> R:
    """Build a dataclass from a stored object, ignoring fields that this release does not know.

    Raises:
        TypeError: A field has the wrong type.
    """
    fields = _fields(kind)
    known = {}
    for name, value in data.items():
        expected = fields.get(name)
        if expected is None:
            continue
        if expected and not isinstance(value, expected):
            raise TypeError(f"{name} is a {type(value).__name__}")
        known[name] = value
    return kind(**known)


@cache
def _fields(kind: type[_Record]) -> Mapping[str, tuple[type, ...]]:
    """The JSON types of the fields; empty where any value is valid."""
    hints = get_type_hints(kind)
    return {
        name: _types(hints[name]) for name, field in kind.__dataclass_fields__.items() if field.init
    }


def _types(hint: Any) -> tuple[type, ...]:
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    found = [_JSON_TYPES.get(get_origin(member) or member) for member in members]
    return () if None in found else tuple(one for types in found for one in types or ())


_JSON_TYPES: Final[Mapping[Any, tuple[type, ...]]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
    NoneType: (NoneType,),
    Mapping: (Mapping,),
}


def check_version(what: str, version: object, newest: int) -> None:
    """Check that this release can read a record.

    Args:
        what: The record, for errors, such as ``a message``.
        version: The version in the record.
        newest: The newest version that this release reads.

    Raises:
        UnreadableRecord: It was written by a newer release, or has no version.
    """
    if isinstance(version, int) and version > newest:
        raise UnreadableRecord(
            f"{what} has format version {version}, this release reads up to {newest}: "
            "upgrade every worker and producer to the newest release in use",
            newer=True,
        )
    if version != newest and version not in range(1, newest):
        raise UnreadableRecord(
            f"{what} has a format version that is not a number above 0: no release has written it"
        )


UNREADABLE: Final = (ValueError, TypeError, AttributeError, LookupError)
"""Errors that reading an invalid record may raise."""


def unreadable(what: str, error: Exception, *, remedy: str) -> UnreadableRecord:
    """Build the one clear error for a record that cannot be read.

    Args:
        what: The record. Its content is never quoted: it may contain users' text.
        error: What went wrong.
        remedy: What to do about a record that no release has written.
    """
    if isinstance(error, KeyError):
        return UnreadableRecord(f"{what} lacks {error}: {remedy}")
    return UnreadableRecord(f"{what} is not valid ({type(error).__name__}): {remedy}")


def reading(what: str, *, remedy: str) -> AbstractContextManager[None]:
    """Translate every error while a record is read; see `unreadable`.

    Args:
        what: The record.
        remedy: What to do about a record that no release has written.

    Raises:
        UnreadableRecord: The record cannot be read.
    """
    return _Reading(what, remedy)


class _Reading(AbstractContextManager[None]):
    """Not a generator, which would be several times slower: a claim reads many records."""

    __slots__ = ("_remedy", "_what")

    def __init__(self, what: str, remedy: str) -> None:
        self._what = what
        self._remedy = remedy

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, UNREADABLE):
            raise unreadable(self._what, error, remedy=self._remedy) from error


def text_in(data: Mapping[str, Any], name: str) -> str:
    """Read a required text field.

    Raises:
        KeyError: It is missing.
        TypeError: It has another type.
    """
    value = data[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}, expected text")
    return value


def some_text_in(data: Mapping[str, Any], name: str) -> str | None:
    """Read an optional text field.

    Raises:
        TypeError: It has another type.
    """
    return None if data.get(name) is None else text_in(data, name)


def object_in(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Read an optional object; empty if it is missing.

    Raises:
        TypeError: It has another type.
    """
    value = data.get(name, {})
    if not isinstance(value, dict):
        raise TypeError(f"{name} is a {type(value).__name__}, expected an object")
    return value
