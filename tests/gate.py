"""A gate at which a turn waits, so that a test decides how long the turn runs."""

from __future__ import annotations

import json
from pathlib import Path


class Gate:
    """Holds turns at the tool `hold` of `tests.acceptance.agents`, until it is opened.

    A tool that just sleeps could end before a slow test looks at it.
    """

    def __init__(self, file: Path) -> None:
        """Create a closed gate.

        Args:
            file: A file that does not exist yet; it is created when the gate opens.
        """
        self._file = file

    @property
    def message(self) -> str:
        """A message that makes the offline model call the tool, which returns "released"."""
        return f"/hold {json.dumps({'file': str(self._file)})}"

    def open(self) -> None:
        """Let all turns continue, including later ones."""
        self._file.touch()
