"""Some of the clients, on every run; ``make clients`` runs all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.environments import prepare
from tests.clients.roster import CLIENTS
from tests.clients.run import Gateway, gateway, run

CHOSEN = ("openai-3", "openai-node", "openai-agents", "instructor", "ai-sdk")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("clients")) as running:
        yield running


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CHOSEN)
def test_every_case_of_the_client_works_unchanged(served: Gateway, name: str) -> None:
    [client] = [one for one in CLIENTS if one.name == name]
    prepare(client)
    outcomes = list(run(client, served))
    assert {one.case: one.error for one in outcomes if one.error is not None} == {}
    assert len(outcomes) > 10
