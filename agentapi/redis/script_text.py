"""The text of a Lua script: the parts of the preludes that it needs, then the script itself.

Redis compiles a script once, but runs its whole text on every call and creates each shared function
again. So a script contains only the functions that it calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_PIECE: Final = re.compile(r"^local .*?(?=^local |\Z)", re.MULTILINE | re.DOTALL)
"""A top-level function or value of a prelude, up to the next one."""

_NAMES: Final = re.compile(r"local (?:function )?(\w+(?:, *\w+)*)")
_COMMENT: Final = re.compile(r"^ *--.*\n", re.MULTILINE)
_WORD: Final = re.compile(r"[A-Za-z_]\w*")


def script_text(preludes: Sequence[str], script: str) -> str:
    """Put the parts of the preludes that a script uses before it.

    Args:
        preludes: Top-level local functions and values, each used only by later ones.
        script: The script; its header is kept.
    """
    needed = _words(script)
    kept: list[str] = []
    for piece in reversed([piece for text in preludes for piece in _pieces(text)]):
        if needed.intersection(_names(piece)):
            needed |= _words(piece)
            kept.append(piece)
    return "\n".join([*reversed(kept), script])


def _pieces(prelude: str) -> list[str]:
    return [piece.rstrip() for piece in _PIECE.findall(_COMMENT.sub("", prelude))]


def _names(piece: str) -> list[str]:
    found = _NAMES.match(piece)
    return re.split(", *", found[1]) if found else []


def _words(text: str) -> set[str]:
    return set(_WORD.findall(_COMMENT.sub("", text)))
