"""Values that a JSON document should not have, and an encoder that writes them all the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

CANARY: Final = "kanarienvogel"
"""Stands in every text that a fuzzed document holds: no log may show it."""


@dataclass(frozen=True, slots=True)
class Raw:
    """JSON as it is written, such as what `json.dumps` cannot write."""

    text: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """An object with a key that comes twice."""

    pairs: tuple[tuple[str, Any], ...]


def _nested(opening: str, closing: str, depth: int, inner: str = "") -> Raw:
    return Raw(opening * depth + inner + closing * depth)


ODD: Final[Mapping[str, Any]] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "minus one": -1,
    "2^53": 2**53 + 1,
    "2^63": 2**63,
    "2^64": 2**64,
    "10^30": 10**30,
    "5000 digits": Raw("9" * 5000),
    "fraction": 1.5,
    "1e308": 1e308,
    "1e999": Raw("1e999"),
    "NaN": Raw("NaN"),
    "Infinity": Raw("Infinity"),
    "empty text": "",
    "space": " ",
    "text": CANARY,
    "digits": "12",
    "high surrogate": f"{CANARY}\ud83d",
    "low surrogate": f"\ude00{CANARY}",
    "both surrogates": f"\ud83d\ude00{CANARY}",
    "NUL": f"\x00{CANARY}\x00",
    "control": f"\x1b[31m{CANARY}\x7f\u0085\u2028",
    "right to left": f"\u202e{CANARY}",
    "combining": "e" + "\u0301" * 200,
    "newlines": f"\r\n\n{CANARY}\r\n\r\ndata: x",
    "100,000 characters": CANARY * 7692,
    "empty list": [],
    "empty object": {},
    "list of null": [None],
    "list of text": [CANARY],
    "list of lists": [[[]]],
    "empty key": {"": CANARY},
    "surrogate key": {f"\ud83d{CANARY}": 1},
    "object": {CANARY: {CANARY: [CANARY, 1, None]}},
    "1,000 items": [CANARY] * 1000,
    "200 lists": _nested("[", "]", 200),
    "300 objects": _nested('{"a":', "}", 300, "1"),
    "900 lists": _nested("[", "]", 900),
    "5000 objects": _nested('{"a":', "}", 5000, "1"),
    "100000 lists": _nested("[", "]", 100_000),
}
"""By name, so that a failing example can be read."""


def encode(value: Any) -> str:
    """A document as JSON, whatever is in it."""
    match value:
        case Raw(text=text):
            return text
        case Pairs(pairs=pairs):
            return "{" + ",".join(f"{json.dumps(k)}:{encode(v)}" for k, v in pairs) + "}"
        case dict():
            return encode(Pairs(tuple(value.items())))
        case list() | tuple():
            return "[" + ",".join(map(encode, value)) + "]"
        case _:
            return json.dumps(value)
