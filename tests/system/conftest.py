"""Collected by ``make test-system`` only."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import sync_playwright

from orchestrator.stack import Stack
from tests.system.browser import Visits, launch
from tests.system.packages import ENABLED
from tests.system.seen import Seen

collect_ignore_glob = [] if os.environ.get(ENABLED) else ["test_*.py"]


@pytest.fixture(scope="session")
def visits() -> Iterator[Visits]:
    """One Chromium for all tests; each opens profiles of its own."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield Visits(browser)
        browser.close()


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Two workers and a gateway without keys."""
    with Stack(
        tmp_path_factory.mktemp("seen"),
        agents=("tests.system.agents",),
        workers=2,
        flower=False,
        gateway=True,
        lease_ttl=2,
        heartbeat=0.5,
        dispatch_grace=1,
        shutdown_grace=1,
    ) as stack:
        yield Seen(stack=stack)
