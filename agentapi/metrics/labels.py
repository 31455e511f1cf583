"""Values of labels, bounded in number and form, so that no metric grows without limit."""

from __future__ import annotations

import re
from typing import Final

MAX_VALUES: Final = 100
"""Maximum values of a label, over all metrics of the process; further values become `OTHER`."""

OTHER: Final = "other"

LONGEST: Final = 100
"""Maximum characters of a value."""

_NAME = re.compile(r"[\w.:/@{}+ -]+", re.ASCII)


class LabelValues:
    """The values that labels have in this process. Safe to share between threads."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def bounded(self, label: str, value: str) -> str:
        """The value, or `OTHER` when the label has too many values or this one is not a name."""
        known = self._known.setdefault(label, set())
        if value in known:
            return value
        # Two threads may add at the same time: one value more than the maximum does no harm.
        if len(known) >= MAX_VALUES or len(value) > LONGEST or not _NAME.fullmatch(value):
            return OTHER
        known.add(value)
        return value
