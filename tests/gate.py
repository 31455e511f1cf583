"""A gate that a turn waits at, so that a test decides how long the turn runs."""

from __future__ import annotations

import json
from pathlib import Path


class Gate:
    """Holds turns at the tool `hold` of `tests.acceptance.agents`, until it is opened.

    A tool that sleeps for some seconds has ended before a slow test looks at it.
    """

    def __init__(self, file: Path) -> None:
        """Make a gate that is closed.

        Args:
            file: Does not exist yet; it is made when the gate opens.
        """
        self._file = file

    @property
    def message(self) -> str:
        """Makes the offline model call the tool, which returns "released"."""
        return f"/hold {json.dumps({'file': str(self._file)})}"

    def open(self) -> None:
        """Let all turns go on, those that come later too."""
        self._file.touch()
