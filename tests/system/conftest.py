"""Collected by ``make test-system`` only."""

from __future__ import annotations

import os

from tests.system.packages import ENABLED

collect_ignore_glob = [] if os.environ.get(ENABLED) else ["test_*.py"]
