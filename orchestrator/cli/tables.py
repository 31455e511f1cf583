"""Prints lists as a table if the terminal is wide enough, otherwise as a few lines per entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from orchestrator.cli.console import console, printable

_FOLDED: Final = 24
"""Minimum width of a long text in a table, in characters."""

_BORDER: Final = 3
"""Space between two columns of a table, in characters."""

_INDENT: Final = "  "


def print_rows(rows: Sequence[Mapping[str, object]], *, head: int, long: str | None = None) -> None:
    """Print entries without cutting off any word. Columns without values are left out.

    Args:
        rows: The entries. Each has the same names, in the order of the columns.
        head: How many columns go on an entry's first line if a table does not fit.
        long: The column with long text, which may be wrapped.
    """
    entries = [_texts(row) for row in rows]
    names = [name for name in entries[0] if any(each[name] for each in entries)]
    if fits(entries, names, long):
        print_table(entries, names, long)
        return
    widths = [max(len(each[name]) for each in entries) for name in names[:head]]
    for each in entries:
        first = (each[name].ljust(size) for name, size in zip(names, widths, strict=False))
        _print_line(_INDENT.join(first).rstrip())
        for line in _packed(each, names[head:]):
            _print_line(f"{_INDENT}{line}")


def fits(entries: Sequence[Mapping[str, str]], names: Sequence[str], long: str | None) -> bool:
    """Whether a table of the entries fits into the terminal's width."""
    from rich.cells import cell_len

    width = 1
    for name in names:
        longest = max(cell_len(text) for text in [name, *(each[name] for each in entries)])
        width += _BORDER + (min(longest, _FOLDED) if name == long else longest)
    return width <= console.width


def print_table(
    entries: Sequence[Mapping[str, str]], names: Sequence[str], long: str | None
) -> None:
    """Print entries as a table that fits."""
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(name, no_wrap=name != long, overflow="fold") for name in names))
    for each in entries:
        table.add_row(*(Text(each[name]) for name in names))
    console.print(table)


def _texts(row: Mapping[str, object]) -> dict[str, str]:
    return {
        name: "" if value is None else printable(str(value)).replace("\n", " ")
        for name, value in row.items()
    }


def _packed(entry: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Pack names and values into lines, as many as fit on each."""
    lines: list[str] = []
    for name in names:
        if not entry[name]:
            continue
        shown = f"{name} {entry[name]}"
        if lines and len(_INDENT) * 2 + len(lines[-1]) + len(shown) <= console.width:
            lines[-1] += f"{_INDENT}{shown}"
        else:
            lines.append(shown)
    return lines


def _print_line(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
