"""Real servers with TLS: Debian's Redis, its Sentinel, and RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentapi.errors import BrokerUnavailable, StoreUnavailable
from orchestrator import Orchestrator
from orchestrator.broker import BROKER_ERRORS, broker_unavailable, producer_app
from orchestrator.doctor import examine
from orchestrator.stack import Stack
from tests.certificates import Authority
from tests.system.rabbitmq import RabbitMQ
from tests.system.tls_redis import TlsRedis

PASSWORD = "hunter2"
WAIT = 120.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsRedis]:
    running = TlsRedis(tmp_path_factory.mktemp("redis"), authority, PASSWORD)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[RabbitMQ]:
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"), authority)
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
def tls(server: TlsRedis, authority: Authority) -> dict[str, Any]:
    return {
        "tls_ca_file": str(authority.file),
        "tls_cert_file": str(server.client.cert),
        "tls_key_file": str(server.client.key),
    }


def whole_turn(folder: Path, redis_url: str, overrides: Mapping[str, Any]) -> None:
    """A turn by a producer and one by the gateway; the password is printed nowhere."""
    with Stack(
        folder,
        agents=("tests.acceptance.agents",),
        workers=1,
        flower="broker_url" not in overrides,
        gateway=True,
        redis_url=redis_url,
        gateway_open=True,
        **overrides,
    ) as stack:
        with Orchestrator(stack.settings) as orchestrator:
            asked = '/echo {"text": "order 8"}'
            handle = orchestrator.enqueue("tools", asked, conversation_id="tls", stream=True)
            assert handle.result(WAIT).steps == 3
        answer = httpx2.post(
            f"{stack.gateway_url}/v1/chat/completions",
            json={"model": "tools", "messages": [{"role": "user", "content": "hello"}]},
            timeout=WAIT,
        )
        assert answer.status_code == 200, answer.text
        codes: set[str] = set()
        while "queues.consumed" not in codes:
            # A busy worker may miss the question.
            found = list(examine(stack.settings))
            codes = {finding.code for finding in found}
        assert {"redis.reachable", "broker.reachable", "queues.consumed"} <= codes, found
        assert PASSWORD not in str(found)
    logs = [path.read_text() for path in (folder / "logs").iterdir()]
    assert logs
    assert not [text for text in logs if PASSWORD in text]


def test_redis(tmp_path: Path, server: TlsRedis, tls: dict[str, Any]) -> None:
    whole_turn(tmp_path, server.url, tls)


def test_sentinel(tmp_path: Path, server: TlsRedis, tls: dict[str, Any]) -> None:
    whole_turn(tmp_path, server.sentinel_url, tls)


def test_rabbitmq(tmp_path: Path, server: TlsRedis, broker: RabbitMQ, tls: dict[str, Any]) -> None:
    whole_turn(tmp_path, server.url, {**tls, "broker_url": broker.tls_url})


def refusal(settings: Any) -> str:
    app = producer_app(settings)
    try:
        with (
            pytest.raises(BROKER_ERRORS) as caught,
            app.connection_for_write() as connection,
        ):
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
    finally:
        app.close()
    error = broker_unavailable(settings, caught.value)
    assert isinstance(error, BrokerUnavailable)
    return str(error)


def test_what_rabbitmqs_faults_say(
    tmp_path: Path, server: TlsRedis, broker: RabbitMQ, tls: dict[str, Any]
) -> None:
    stranger = Authority(tmp_path / "stranger", "strangers")
    secured = Stack(tmp_path, redis_url=server.url, broker_url=broker.tls_url, **tls).settings
    wrong_ca = secured.model_copy(update={"tls_ca_file": str(stranger.file)})
    assert "AGENTAPI_TLS_CA_FILE" in refusal(wrong_ca)
    # The certificate is for the name, not for this address.
    address = broker.tls_url.replace("localhost", "127.0.0.1")
    assert "another name" in refusal(secured.model_copy(update={"broker_url": address}))
    encrypted_to_plain = broker.url.replace("amqp://", "amqps://")
    said = refusal(secured.model_copy(update={"broker_url": encrypted_to_plain}))
    assert "does not speak TLS" in said
    plain_to_encrypted = broker.tls_url.replace("amqps://", "amqp://")
    said = refusal(secured.model_copy(update={"broker_url": plain_to_encrypted}))
    assert "write amqps://" in said
    for url, why, remedy in (
        (broker.url.replace("guest:guest", f"guest:{PASSWORD}"), "refuses the user", "Correct the"),
        (f"{broker.url.rstrip('/')}/missing", "no such virtual host", "Create the virtual host"),
    ):
        wrong = secured.model_copy(update={"broker_url": url})
        assert why in refusal(wrong)
        [found] = [each for each in examine(wrong) if each.code == "broker.unreachable"]
        assert found.remedy.startswith(remedy)
        assert PASSWORD not in str(found)


def test_what_redis_faults_say(server: TlsRedis, tls: dict[str, Any], tmp_path: Path) -> None:
    faults: dict[str, dict[str, Any]] = {
        "write rediss://": {"redis_url": server.url.replace("rediss", "redis")},
        "AGENTAPI_TLS_CERT_FILE": {"tls_cert_file": None, "tls_key_file": None},
        "AGENTAPI_TLS_CA_FILE": {"tls_ca_file": None},
    }
    secured = Stack(tmp_path, redis_url=server.url, **tls).settings
    for wanted, fault in faults.items():
        with (
            Orchestrator(secured.model_copy(update=fault)) as orchestrator,
            pytest.raises(StoreUnavailable, match=wanted) as caught,
        ):
            orchestrator.enqueue("tools", "hello", conversation_id="refused")
        assert PASSWORD not in str(caught.value)
