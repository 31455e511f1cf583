"""What a target of the fuzzing is."""

from __future__ import annotations

from typing import Any, Protocol

from hypothesis import strategies as st


class Target(Protocol):
    """Something that takes input from outside.

    Attributes:
        name: As ``--target`` takes it.
        examples: How many are tried in the test suite.
    """

    name: str
    examples: int

    def strategy(self) -> st.SearchStrategy[Any]:
        """Examples."""
        ...

    def attack(self, example: Any) -> None:
        """Send one, and see that only its own turn knows of it.

        Raises:
            AssertionError: A promise is broken.
        """
        ...

    def settle(self) -> None:
        """See that everything is alive and nothing was left over.

        Raises:
            AssertionError: A promise is broken.
        """
        ...
