"""Converts the fields of a plan to command line options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar, get_type_hints

P = TypeVar("P")


def option(default: Any, explained: str) -> Any:
    """A field of a plan, with its text for ``--help``."""
    return field(default=default, metadata={"help": explained})


def parse(plan: type[P], arguments: Sequence[str], name: str, **given: Any) -> P:
    """Create a plan from the command line.

    Args:
        plan: A dataclass. Each field made with `option` becomes an option.
        arguments: The words of the command line.
        name: Name of the command, for its help.
        given: Values of fields that are not options.
    """
    parser = argparse.ArgumentParser(prog=name, description=plan.__doc__)
    types = get_type_hints(plan)
    for one in fields(plan):  # type: ignore[arg-type]
        if "help" not in one.metadata:
            continue
        words = f"--{one.name.replace('_', '-')}"
        explained = f"{one.metadata['help']} ({one.default})"
        if types[one.name] is bool:
            parser.add_argument(words, action="store_true", help=one.metadata["help"])
        else:
            assert one.default is not MISSING
            parser.add_argument(words, type=types[one.name], default=one.default, help=explained)
    return plan(**vars(parser.parse_args(arguments)), **given)
