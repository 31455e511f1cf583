"""One runner for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faultpoints.runner import Runner


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("faults"), cells=4) as running:
        yield running
