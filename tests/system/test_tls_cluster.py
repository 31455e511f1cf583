"""A cluster with TLS: its nodes' names and addresses, redirections, and a failover."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from agentapi import load_settings
from agentapi.errors import StoreUnavailable
from agentapi.ids import PARTITIONS
from agentapi.redis.keys import due_key
from orchestrator import Orchestrator
from orchestrator.doctor import examine
from orchestrator.stack.cluster import wait_until
from tests.certificates import Authority
from tests.cluster_load import another, ask, stack_on, under_load
from tests.system.tls_cluster import TlsCluster

PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def nodes(tmp_path: Path, authority: Authority) -> Iterator[TlsCluster]:
    made = TlsCluster(tmp_path / "cluster", authority, PASSWORD)
    yield made
    made.stop()


def enqueue(nodes: TlsCluster, **overrides: Any) -> None:
    given = {"redis_url": nodes.url, "broker_url": "memory://", **nodes.tls, **overrides}
    settings = load_settings(**given)
    with Orchestrator(settings) as orchestrator:
        for number in range(20):
            orchestrator.enqueue("tools", "hello", conversation_id=f"tls:{number}")


def move_slots(nodes: TlsCluster) -> None:
    """Move some slots to other nodes. Clients learn of it by redirections to names."""
    for partition in range(0, PARTITIONS, 16):
        slot = key_slot(due_key(partition).encode())
        nodes.move_slot(slot, another(nodes, nodes.primary_of(slot)))


# Python does not close a socket whose server dies just before the handshake.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)
def test_turns_over_tls(tmp_path: Path, nodes: TlsCluster) -> None:
    # The nodes name each other by address, and the certificate has no address.
    said = "that AGENTAPI_REDIS_URL or the cluster uses .* cluster-announce-hostname"
    with pytest.raises(StoreUnavailable, match=said) as caught:
        enqueue(nodes)
    assert PASSWORD not in str(caught.value)
    enqueue(nodes, tls_verify="ca")
    nodes.announce_names()
    enqueue(nodes)
    faults: dict[str, dict[str, Any]] = {
        r"write rediss\+cluster://": {"redis_url": nodes.url.replace("rediss", "redis")},
        "AGENTAPI_TLS_CERT_FILE": {"tls_cert_file": None, "tls_key_file": None},
        "AGENTAPI_TLS_CA_FILE": {"tls_ca_file": None},
    }
    for wanted, fault in faults.items():
        with pytest.raises(StoreUnavailable, match=wanted) as caught:
            enqueue(nodes, **fault)
        assert PASSWORD not in str(caught.value)
    with (
        stack_on(nodes, tmp_path / "stack", gateway_open=True, **nodes.tls) as stack,
        Orchestrator(stack.settings) as orchestrator,
    ):
        with under_load(orchestrator) as load:
            load.more(10)
            move_slots(nodes)
            load.more(10)
            dead = nodes.primaries()[0]
            nodes.lose(dead)
            nodes.start(dead.port)
            load.more(20)
            wait_until(lambda: ask(stack) == 200, "the gateway")
        found = list(examine(stack.settings))
        assert "redis.reachable" in {finding.code for finding in found}, found
        assert PASSWORD not in str(found)
    logs = [path.read_text() for path in (tmp_path / "stack" / "logs").iterdir()]
    assert logs
    assert not [text for text in logs if PASSWORD in text]
