"""Finds links in the repository's pages, and adapts them to the site."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

OUTSIDE: Final = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "deploy/README.md")
"""Pages outside docs/ that are also pages of the site."""

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<to>[^()\s]+)\)")
_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", re.M | re.S)
_CODE = re.compile(r"`[^`\n]+`")


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A link of a page.

    Attributes:
        text: The link text.
        path: The target, relative to the repository's root; the page itself for a link within it.
        anchor: The part after the `#`; empty without one.
    """

    text: str
    path: str
    anchor: str


def links(page: str, markdown: str) -> Iterator[Link]:
    """The relative links of a page.

    Args:
        page: Path of the page, relative to the repository's root.
        markdown: Its text.
    """
    for found in _LINK.finditer(without_code(markdown)):
        if not _absolute(found["to"]):
            yield _link(page, found)


def for_site(page: str, markdown: str) -> str:
    """Adapt the links in a page's text to the site.

    Pages outside docs/ are placed next to those inside. Links to files that the site does not have,
    such as source files, become plain text.
    """

    def replace(found: re.Match[str]) -> str:
        if _absolute(found["to"]):
            return found[0]
        link = _link(page, found)
        target = site_path(link.path)
        if target is None:
            return found["text"]
        here = PurePosixPath(site_path(page) or page).parent
        anchor = f"#{link.anchor}" if link.anchor else ""
        place = "" if link.path == page else os.path.relpath(target, here)
        return f"{found['image']}[{found['text']}]({place}{anchor})"

    parts: list[str] = []
    end = 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(replace, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(replace, markdown[end:])])


def site_path(path: str) -> str | None:
    """The path of a repository file within the site; None if the site does not have it."""
    if path in OUTSIDE:
        return path
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def without_code(markdown: str) -> str:
    """The text without code blocks and code spans."""
    return _CODE.sub("", _FENCE.sub("", markdown))


def _absolute(target: str) -> bool:
    return target.startswith(("http://", "https://", "mailto:"))


def _link(page: str, found: re.Match[str]) -> Link:
    path, _, anchor = found["to"].partition("#")
    folder = PurePosixPath(page).parent
    resolved = os.path.normpath(folder / path) if path else page
    return Link(text=found["text"], path=resolved, anchor=anchor)
