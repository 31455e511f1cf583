"""The type of an agent's context: what producers may send with a turn, and how it is stored."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, Final, Generic

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from agentapi.decoding.plain import plain
from agentapi.decoding.shown import shown
from agentapi.errors import InvalidAgent, InvalidContext
from agentapi.faults import text_of
from agentapi.turns.context import ContextT

MAX_CONTEXT_BYTES: Final = 65_536

_EXPECTED: Final = f"a JSON object of at most {MAX_CONTEXT_BYTES} bytes"

_UNSTORABLE: Final = (
    PydanticSerializationError,
    ValidationError,
    ValueError,
    TypeError,
    RecursionError,
)


class ContextType(Generic[ContextT]):
    """The type of an agent's context.

    Attributes:
        kind: The type itself.
    """

    def __init__(self, kind: type[ContextT], agent: str) -> None:
        """Check that values of the type can be stored as JSON and read back.

        Args:
            kind: Anything that pydantic can validate and JSON expresses as an object: a model, a
                dataclass, a `TypedDict`.
            agent: Name of the agent, for errors.

        Raises:
            InvalidAgent: They cannot be stored, or the type has a secret.
        """
        self.kind = kind
        self._name = _name_of(kind)
        self._owner = f"a {self._name}, the context_type of agent {agent!r}"
        self._lacking = (
            f"agent {agent!r} needs a context, but the turn has none: enqueue it with "
            f"context={self._name}(...). OpenAI's API has no field for a context"
        )
        try:
            self._adapter: TypeAdapter[ContextT] = _adapter_of(kind)
        except _Unfit as error:
            raise InvalidAgent(
                f"agent {agent!r}: context_type {self._name} {error}; expected a pydantic model, a "
                "dataclass or a TypedDict whose fields JSON can express"
            ) from error

    def store(self, value: object) -> dict[str, Any] | None:
        """Check a producer's value and convert it for storage.

        Args:
            value: A value of the type, or a mapping with its fields; None for no context.

        Raises:
            InvalidContext: It does not match the type.
        """
        if value is None:
            self.load(None)
            return None
        try:
            data = _dumped(self._adapter, self._adapter.validate_python(value))
        except Exception as error:
            # A user-defined validator may raise anything.
            raise self._mismatch(error) from error
        stored = _checked(data)
        # Workers must be able to read it: a type may write names that differ from those it reads.
        self.load(stored)
        return stored

    def load(self, stored: Mapping[str, Any] | None) -> ContextT:
        """The value of a stored context.

        Without one, it is None if the type allows that, or a value with all defaults.

        Raises:
            InvalidContext: The stored context does not match the type, or is missing.
        """
        if stored is None:
            return self._default()
        try:
            # From JSON text, not from the dict: a strict type reads dates only from text.
            return self._adapter.validate_json(orjson.dumps(dict(stored)))
        except Exception as error:
            raise self._mismatch(error) from error

    def _default(self) -> ContextT:
        for nothing in (b"null", b"{}"):
            try:
                return self._adapter.validate_json(nothing)
            except Exception:  # noqa: S112 - the next may do
                continue
        raise InvalidContext(self._lacking)

    @property
    def has_default(self) -> bool:
        """Whether a turn may have no context."""
        try:
            self._default()
        except InvalidContext:
            return False
        return True

    def _mismatch(self, error: Exception) -> InvalidContext:
        return InvalidContext(
            f"the context is not {self._owner}: {explain_context(error)}; expected {_EXPECTED}"
        )


def stored_context(value: object, kind: ContextType[Any] | None) -> dict[str, Any] | None:
    """Check a producer's context and convert it for storage.

    Args:
        value: A mapping, a pydantic model or a dataclass; None for no context.
        kind: The type that the agent declares; None if it declares none, or if the agent is not
            known here.

    Raises:
        InvalidContext: It does not match the type, or cannot be stored.
    """
    if kind is not None:
        return kind.store(value)
    if value is None:
        return None
    if isinstance(value, BaseModel) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    ):
        return _stored_instance(value)
    if not isinstance(value, Mapping):
        raise InvalidContext(
            f"the context is {shown(type(value).__name__)}: expected a mapping, a pydantic model "
            f"or a dataclass, as {_EXPECTED}"
        )
    try:
        data = to_jsonable_python(dict(value), by_alias=True)
    except _UNSTORABLE as error:
        raise InvalidContext(
            f"the context cannot be stored as JSON ({type(error).__name__}): expected {_EXPECTED}"
        ) from error
    return _checked(data)


def _stored_instance(value: object) -> dict[str, Any]:
    """A model or dataclass of the producer's own."""
    kind: Any = type(value)
    name = _name_of(kind)
    try:
        data = _dumped(_known_adapter(kind), value)
    except _Unfit as error:
        raise InvalidContext(f"the context, a {name}, {error}; expected {_EXPECTED}") from error
    except Exception as error:
        raise InvalidContext(
            f"the context, a {name}, cannot be stored as JSON: {explain_context(error)}; expected "
            f"{_EXPECTED}"
        ) from error
    return _checked(data)


class _Unfit(Exception):
    """Values of a type cannot be stored. The text continues a sentence that begins with the type's
    name."""


def _adapter_of(kind: Any) -> TypeAdapter[Any]:
    try:
        adapter = TypeAdapter(kind)
        schemas = adapter.json_schema(), adapter.json_schema(mode="serialization")
    except (PydanticUserError, NotImplementedError, NameError, TypeError) as error:
        raise _Unfit(f"cannot be stored as JSON: {text_of(error).splitlines()[0]}") from error
    for schema in schemas:
        if not _is_object(schema, schema.get("$defs", {})):
            raise _Unfit("is not a JSON object")
    if secret := _secret_in(schemas[1]):
        raise _Unfit(
            f"has a secret ({secret}), and secrets are not stored (send a reference, and let a "
            "tool look the secret up)"
        )
    return adapter


@lru_cache(maxsize=256)
def _known_adapter(kind: Hashable) -> TypeAdapter[Any]:
    return _adapter_of(kind)


def _dumped(adapter: TypeAdapter[Any], value: object) -> Any:
    # Without warnings, which would quote the value. An invalid value is found when it is read back.
    return adapter.dump_python(value, mode="json", by_alias=True, warnings="none")


def _name_of(kind: object) -> str:
    return getattr(kind, "__name__", None) or shown(kind)


def context_for(stored: Mapping[str, Any] | None, kind: ContextType[Any] | None) -> Any:
    """The context that an agent's functions receive.

    Raises:
        InvalidContext: The stored context does not match the agent's type.
    """
    if kind is not None:
        return kind.load(stored)
    # A copy: a tool may modify it, and the next attempt must see what was sent.
    return None if stored is None else orjson.loads(orjson.dumps(dict(stored)))


def inherits(parent: ContextType[Any] | None, child: ContextType[Any] | None) -> bool:
    """Whether a child turn without its own context gets its parent's context.

    It does unless both agents declare a type and the types differ.
    """
    return parent is None or child is None or parent.kind == child.kind


def fits(declared: ContextType[Any] | None, wanted: Any) -> bool:
    """Whether a function that expects a type of context can belong to an agent.

    Args:
        declared: The agent's `context_type`.
        wanted: The type in the function's annotation; Any if there is none.
    """
    if wanted is Any or wanted is object or isinstance(wanted, typing.TypeVar):
        return True
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return any(fits(declared, member) for member in typing.get_args(wanted))
    if declared is None:
        # Without a type, functions get a dict or None.
        return (typing.get_origin(wanted) or wanted) in (dict, Mapping, type(None))
    if declared.kind == wanted:
        return True
    if not isinstance(wanted, type) or not isinstance(declared.kind, type):
        return False
    try:
        return issubclass(declared.kind, wanted)
    except TypeError:
        # Protocols and typed dicts cannot be checked at run time; type checkers check them.
        return not typing.is_typeddict(wanted)


def explain_context(error: Exception) -> str:
    """What is wrong with a context. The values are left out: they may contain users' text."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'context'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)[:20]
        )
    return f"{type(error).__name__} during validation"


def _checked(data: Any) -> dict[str, Any]:
    """A context as JSON that can be stored: an object, of bounded size and depth."""
    if not isinstance(data, dict):
        raise InvalidContext(f"the context is a {type(data).__name__}: expected {_EXPECTED}")
    try:
        text = orjson.dumps(data)
        storable = plain(data) is data
    except (*_UNSTORABLE, orjson.JSONEncodeError) as error:
        raise InvalidContext(
            f"the context cannot be stored as JSON ({type(error).__name__}: {text_of(error)}): "
            f"expected {_EXPECTED}"
        ) from error
    if not storable or len(text) > MAX_CONTEXT_BYTES:
        size = f"has {len(text)} bytes" if storable else "is nested too deeply"
        raise InvalidContext(f"the context {size}: expected {_EXPECTED}")
    read: dict[str, Any] = orjson.loads(text)
    return read


def _is_object(schema: Any, definitions: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether a JSON schema describes objects only; a union may also contain null."""
    if not isinstance(schema, Mapping) or depth > 10:
        return False
    if reference := schema.get("$ref"):
        target = definitions.get(str(reference).rpartition("/")[2])
        return _is_object(target, definitions, depth + 1)
    branches = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    if branches:
        found = [branch for branch in branches if branch.get("type") != "null"]
        return bool(found) and all(_is_object(b, definitions, depth + 1) for b in found)
    return schema.get("type") == "object"


def _secret_in(schema: Any, name: str = "the type itself") -> str | None:
    """Name of a field that is written as asterisks, such as a `SecretStr`."""
    if isinstance(schema, list):
        return next(filter(None, (_secret_in(inside, name) for inside in schema)), None)
    if not isinstance(schema, Mapping):
        return None
    if schema.get("writeOnly") and schema.get("format") == "password":
        return name
    for key, inside in schema.items():
        if key in ("default", "examples", "enum", "const"):
            continue
        named = key in ("properties", "$defs") and isinstance(inside, Mapping)
        if named and key == "properties":
            found = next(filter(None, (_secret_in(s, n) for n, s in inside.items())), None)
        else:
            found = _secret_in(inside, name)
        if found:
            return found
    return None
