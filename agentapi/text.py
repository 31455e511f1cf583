"""Text from outside, made fit to be stored and sent: valid Unicode, of a bounded length."""

from __future__ import annotations

from typing import Final

_CUT: Final = "… [cut off]"


def clean(text: str) -> str:
    """The text with its surrogates joined to the characters that they are halves of.

    JSON may hold half a character (``"\\ud83d"``), which is no Unicode text: no encoder takes
    it. A half without its other half becomes U+FFFD.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def cut(text: str, longest: int) -> str:
    """The text, or its first `longest` characters and a word that there was more."""
    return text if len(text) <= longest else text[:longest] + _CUT


class Cleaner:
    """Cleans text that comes in pieces, which may end between the halves of a character."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, piece: str) -> str:
        """What is complete so far and was not given out yet."""
        text, self._half = self._half + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return clean(text)

    def rest(self) -> str:
        """What never became complete."""
        text, self._half = self._half, ""
        return clean(text)
