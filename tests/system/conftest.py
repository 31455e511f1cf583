"""Collected by ``make test-system`` only."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import sync_playwright

from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.system.browser import Visits, launch
from tests.system.locked import Locked, make_keys
from tests.system.packages import ENABLED
from tests.system.pictures.world import populate, shop
from tests.system.seen import Seen

collect_ignore_glob = [] if os.environ.get(ENABLED) else ["test_*.py"]


@pytest.fixture(scope="session")
def visits() -> Iterator[Visits]:
    """One Chromium for all tests. Each test opens its own profiles."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield Visits(browser)
        browser.close()


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A shop with two workers, and a gateway without keys."""
    folder = tmp_path_factory.mktemp("seen")
    with (
        shop(folder, agents=("tests.system.agents",), workers=2) as stack,
        Orchestrator(stack.settings) as orchestrator,
    ):
        world = populate(stack, orchestrator, seconds=2)
        yield Seen(stack=stack, orchestrator=orchestrator, world=world)


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """One worker, and a gateway with keys of two tenants."""
    with (
        Stack(
            tmp_path_factory.mktemp("locked"),
            agents=("tests.system.agents",),
            workers=1,
            flower=False,
            gateway=True,
            shutdown_grace=1,
            gateway_wrong_keys_per_minute=0,
        ) as stack,
        Orchestrator(stack.settings) as orchestrator,
    ):
        operator, reader, listener, program, stranger = make_keys(
            stack.settings,
            ("ops", "content operate"),
            ("acme", "read"),
            ("acme", "content"),
            ("acme", "turns"),
            ("evil", "turns content"),
        )
        yield Locked(
            stack=stack,
            orchestrator=orchestrator,
            operator=operator,
            reader=reader,
            listener=listener,
            program=program,
            stranger=stranger,
        )
