"""The required format of a reply: the agent's `output_type`, a request's schema, or both."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final, Protocol

import jsonschema_rs
import orjson
from pydantic import ValidationError

from agentapi.agents.output import OutputType, explain_output, without_fences
from agentapi.decoding.json_schema import CAREFUL, faults_of
from agentapi.errors import AgentAPIError, InvalidInput
from agentapi.providers.base import OutputSpec
from agentapi.turns.request_options import RequestedOutput

MAX_SCHEMA_BYTES: Final = 65_536
"""Maximum size of a request's schema as JSON, in bytes."""

_MAX_UNFOLDED: Final = 20_000
"""Maximum number of subschemas once references are resolved. The time of a validation grows with
this number, and references can make the number grow exponentially."""

_MAX_DEPTH: Final = 32
"""Maximum nesting of a reply to a request's schema."""

_SHOWN_PROBLEMS: Final = 20

_AGAIN: Final = "Reply again with the JSON only."


class InvalidReply(AgentAPIError):
    """A reply does not have the required format. The text may be shown to the model."""

    code = "invalid_reply"


class ReplyFormat(Protocol):
    """The required format of a reply."""

    @property
    def spec(self) -> OutputSpec:
        """The format as providers receive it."""
        ...

    def read(self, text: str) -> str:
        """Check a reply; returns it in the form in which it is stored.

        Raises:
            InvalidReply: It does not have the format.
        """
        ...


def reply_format(
    own: OutputType[Any] | None, requested: RequestedOutput | None
) -> ReplyFormat | None:
    """The format of an agent's replies to a request; None for any text.

    Args:
        own: The agent's own type. If there is one, the model is asked for it.
        requested: The format that the request asks for.

    Raises:
        InvalidInput: The request's schema is not valid.
    """
    if requested is None:
        return None if own is None else _Own(own)
    wanted = _wanted(orjson.dumps(_as_dict(requested)))
    return wanted if own is None else _Both(_Own(own), wanted)


def check_requested(requested: RequestedOutput) -> None:
    """Check a request's schema.

    Raises:
        InvalidInput: It is not a valid JSON schema, or too large.
    """
    _wanted(orjson.dumps(_as_dict(requested)))


class _Own:
    """An agent's `output_type`."""

    def __init__(self, kind: OutputType[Any]) -> None:
        self._kind = kind
        self.spec = kind.spec

    def read(self, text: str) -> str:
        try:
            return self._kind.read(text)[1]
        except ValidationError as error:
            raise InvalidReply(explain_output(error)) from None


class _Wanted:
    """A request's schema, or any JSON object."""

    def __init__(self, requested: RequestedOutput) -> None:
        schema = requested.schema
        shown = {"type": "object"} if schema is None else dict(schema)
        if requested.description is not None:
            shown.setdefault("description", requested.description)
        self.spec = OutputSpec(name=requested.name, schema=shown, free=schema is None)
        self._validator = jsonschema_rs.Draft202012Validator(dict(self.spec.schema), **CAREFUL)

    def read(self, text: str) -> str:
        bare = without_fences(text)
        try:
            value = orjson.loads(bare)
        except orjson.JSONDecodeError as error:
            raise InvalidReply(f"Your reply is not valid JSON: {error}. {_AGAIN}") from None
        if is_deeper(value, _MAX_DEPTH):
            raise InvalidReply(f"Your reply is nested more than {_MAX_DEPTH} deep. {_AGAIN}")
        faults = islice(faults_of(self._validator, value, "reply"), _SHOWN_PROBLEMS)
        if problems := [fault[:500] for fault in faults]:
            raise InvalidReply(
                f"Your reply does not match the required JSON schema: {'; '.join(problems)}. "
                f"{_AGAIN}"
            )
        return bare


class _Both:
    """An agent's own type, for replies that must also match the request's schema."""

    def __init__(self, own: _Own, wanted: _Wanted) -> None:
        self._own = own
        self._wanted = wanted
        self.spec = own.spec

    def read(self, text: str) -> str:
        return self._wanted.read(self._own.read(text))


@lru_cache(maxsize=64)
def _wanted(requested: bytes) -> _Wanted:
    """Built once per schema, because building it costs more than using it."""
    if len(requested) > MAX_SCHEMA_BYTES:
        raise InvalidInput(
            f"the schema has {len(requested)} bytes: expected at most {MAX_SCHEMA_BYTES}"
        )
    output = RequestedOutput(**orjson.loads(requested))
    if output.schema is not None:
        _check_size(output.schema)
    try:
        return _Wanted(output)
    except (jsonschema_rs.ValidationError, ValueError, TypeError) as error:
        raise InvalidInput(f"the schema is not a valid JSON schema: {error}") from None


def _as_dict(requested: RequestedOutput) -> dict[str, Any]:
    return {
        "name": requested.name,
        "schema": None if requested.schema is None else dict(requested.schema),
        "description": requested.description,
    }


def is_deeper(value: Any, limit: int) -> bool:
    """Whether lists and objects are nested deeper than a limit."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [
            inner
            for found in level
            for inner in (found.values() if isinstance(found, dict) else found)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _check_size(schema: Mapping[str, Any]) -> None:
    """Refuse schemas whose references expand to too many schemas.

    Raises:
        InvalidInput: It contains too many subschemas once its references are resolved.
    """
    if _Unfolding(schema).size(schema) > _MAX_UNFOLDED:
        raise InvalidInput(
            "the schema is too complex: with its references resolved it has more than "
            f"{_MAX_UNFOLDED} subschemas"
        )


class _Unfolding:
    """Counts the subschemas of a schema with its references resolved. A cycle is followed once."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root = schema
        self._sizes: dict[str, int] = {}

    def size(self, node: Any) -> int:
        if isinstance(node, list):
            return sum(map(self.size, node))
        if not isinstance(node, Mapping):
            return 0
        total = 1
        for name, inner in node.items():
            if name in ("$ref", "$dynamicRef") and isinstance(inner, str):
                total += self._of(inner)
            elif name not in ("$defs", "definitions"):
                total += self.size(inner)
        return total

    def _of(self, reference: str) -> int:
        if reference not in self._sizes:
            # A reference back to a subschema that is being counted adds nothing.
            self._sizes[reference] = 0
            self._sizes[reference] = self.size(self._target(reference))
        return self._sizes[reference]

    def _target(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping):
                found = found.get(part)
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found
