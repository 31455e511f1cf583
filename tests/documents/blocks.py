"""Blocks of code in Markdown pages, and what the pages say about them.

A page says in a comment at its top what its blocks need::

    <!-- needs: eager -->    AGENTAPI_EAGER, offline providers in place of the real ones
    <!-- needs: stack -->    Valkey and a worker that serves the page's modules; or `gateway` too

Python blocks of a page run in order in one namespace; one with a title is a module of that name.
A ``text`` block behind a block is what that prints; ``…`` stands for what differs from run to run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deploy/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)

NEEDS: Final = {"docs/gateway.md": ("gateway",)}
"""What pages need that do not say so themselves."""

_BLOCK = re.compile(
    r"(?P<before><!-- not run: (?P<reason>[^\n]*?) -->\n\n?)?"
    r"^(?P<indent> *)```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$"
    r"|^<!-- setup\n(?P<setup>.*?)^-->$",
    re.M | re.S,
)
_TITLE = re.compile(r'title="([^"]+)"')
_NEEDS = re.compile(r"^<!-- needs: ([\w ]+) -->$", re.M)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One block of code.

    Attributes:
        page: Where it is, from the repository's root.
        line: Of its first line of code.
        language: As the fence says.
        title: A file's name, or empty.
        reason: Why it is not run; empty if it is.
    """

    page: str
    line: int
    language: str
    title: str
    code: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    """A page's Markdown."""
    return (ROOT / page).read_text()


def blocks_of(page: str) -> list[Block]:
    """A page's blocks in order; hidden set-up is a Python block too."""
    text = text_of(page)
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        kind = "setup" if match["setup"] is not None else "code"
        title = _TITLE.search(match["options"] or "")
        indent = match["indent"] or ""
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start(kind)) + 1,
                language=match["language"] or "python",
                title=title[1] if title else "",
                code=re.sub(rf"^{indent}", "", match[kind], flags=re.M),
                reason=match["reason"] or "",
            )
        )
    return found


def needs_of(page: str) -> set[str]:
    """What a page's blocks need."""
    found = _NEEDS.search(text_of(page))
    return set(found[1].split()) if found else set(NEEDS.get(page, ()))


def matches(expected: str, actual: str) -> bool:
    """Whether an output is the one expected, in which ``…`` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, actual.strip(), re.S) is not None
