"""Redis with TLS, as store and as broker: what works, and what each fault says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu.exceptions import OperationalError

from agentapi import Settings
from agentapi.broker.wire import celery_settings
from agentapi.errors import ConfigurationError, StoreUnavailable
from agentapi.redis.aio import connect as connect_async
from agentapi.redis.connection import connect, translate_errors
from orchestrator.broker import broker_unavailable, producer_app
from orchestrator.doctor import examine
from tests.certificates import Authority, Identity, TlsProxy


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "strangers")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Identity:
    return authority.sign("server", hosts=("127.0.0.1", "localhost"))


Start = Callable[..., int]


@pytest.fixture
def start(redis_url: str) -> Iterator[Start]:
    """Starts a proxy in front of the server; returns its port."""
    with ExitStack() as proxies:

        def starter(server: Identity, clients: Path | None = None) -> int:
            target = urlsplit(redis_url).port
            assert target is not None
            return proxies.enter_context(TlsProxy(target, server, clients)).port

        yield starter


def settings_of(port: int, scheme: str = "rediss", **tls: Any) -> Settings:
    tls = {name: str(value) for name, value in tls.items()}
    return Settings(redis_url=f"{scheme}://:hunter2@127.0.0.1:{port}/0", redis_timeout=2, **tls)


def without_login(settings: Settings) -> Settings:
    url = settings.redis_url.replace(":hunter2@", "")
    # These are answered: a busy machine may take its time.
    return settings.model_copy(update={"redis_url": url, "broker_url": url, "redis_timeout": 30})


def ask_store(settings: Settings) -> None:
    with closing(connect(settings)) as client, translate_errors(settings.redis_url):
        client.ping()


def ask_broker(settings: Settings) -> None:
    app = producer_app(settings)
    try:
        with app.connection_for_write() as connection:
            timeout = settings.redis_timeout
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=timeout)
            connection.default_channel.client.ping()
    finally:
        app.close()


async def ask_loop(settings: Settings) -> None:
    client = connect_async(settings, connections=2)
    try:
        with translate_errors(settings.redis_url):
            await client.ping()
    finally:
        await client.aclose()


def told_by_store(settings: Settings) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        ask_store(settings)
    return str(caught.value)


def told_by_broker(settings: Settings) -> str:
    with pytest.raises((OperationalError, OSError)) as caught:
        ask_broker(settings)
    return str(broker_unavailable(settings, caught.value))


async def told_on_loop(settings: Settings) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await ask_loop(settings)
    return str(caught.value)


def remedies(settings: Settings) -> dict[str, str]:
    """What the doctor says to do."""
    reached = settings.model_copy(update={"broker_url": settings.redis_url})
    found = {finding.code: finding for finding in examine(reached)}
    assert not [finding for finding in found.values() if "hunter2" in str(finding)]
    return {code: finding.remedy for code, finding in found.items() if "unreach" in code}


async def all_tell(settings: Settings, *wanted: str) -> None:
    for told in (told_by_store(settings), told_by_broker(settings), await told_on_loop(settings)):
        assert "hunter2" not in told
        assert all(part in told for part in wanted), told


async def test_both_verify_and_connect(
    start: Start, server: Identity, authority: Authority
) -> None:
    port = start(server)
    for verify in ("full", "ca"):
        settings = without_login(settings_of(port, tls_ca_file=authority.file, tls_verify=verify))
        ask_store(settings)
        ask_broker(settings)
        await ask_loop(settings)


async def test_a_client_shows_its_certificate(
    start: Start, server: Identity, authority: Authority
) -> None:
    port = start(server, authority.file)
    client = authority.sign("client")
    files: dict[str, Any] = {"tls_cert_file": client.cert, "tls_key_file": client.key}
    settings = without_login(settings_of(port, tls_ca_file=authority.file, **files))
    ask_store(settings)
    ask_broker(settings)
    await ask_loop(settings)
    await all_tell(settings_of(port, tls_ca_file=authority.file), "AGENTAPI_TLS_CERT_FILE")


async def test_a_certificate_of_another_ca(
    start: Start, server: Identity, stranger: Authority
) -> None:
    port = start(server)
    await all_tell(settings_of(port, tls_ca_file=stranger.file), "AGENTAPI_TLS_CA_FILE")
    await all_tell(settings_of(port), "AGENTAPI_TLS_CA_FILE")


async def test_an_expired_certificate(start: Start, authority: Authority) -> None:
    port = start(authority.sign("old", hosts=("127.0.0.1",), expired=True))
    await all_tell(settings_of(port, tls_ca_file=authority.file), "has expired", "clock")


async def test_a_certificate_for_another_host(start: Start, authority: Authority) -> None:
    port = start(authority.sign("other", hosts=("redis.example",)))
    settings = settings_of(port, tls_ca_file=authority.file)
    await all_tell(settings, "is for another name", "AGENTAPI_TLS_VERIFY=ca")
    checked = settings.model_copy(update={"tls_verify": "ca"})
    ask_store(without_login(checked))
    ask_broker(without_login(checked))
    await ask_loop(without_login(checked))


async def test_tls_to_a_port_without_it(redis_url: str) -> None:
    # A server waits for the end of what it takes for a command, or answers that there is no such.
    settings = settings_of(urlsplit(redis_url).port or 0)
    for told in (told_by_store(settings), told_by_broker(settings), await told_on_loop(settings)):
        assert "hunter2" not in told
        assert "does this one speak TLS" in told or "does not speak TLS" in told, told


async def test_no_tls_to_a_port_with_it(start: Start, server: Identity) -> None:
    await all_tell(settings_of(start(server), scheme="redis"), "write rediss:// in the URL")


def test_the_doctor_says_what_to_do(
    start: Start, server: Identity, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    port = start(server)
    files: dict[str, Any] = {"tls_ca_file": authority.file}
    asks = start(server, authority.file)
    old = start(authority.sign("older", hosts=("127.0.0.1",), expired=True))
    expected = {
        "Renew it on the server, or correct this machine's clock.": settings_of(old, **files),
        "Set AGENTAPI_TLS_CA_FILE to": settings_of(port, tls_ca_file=stranger.file),
        "Start it, or write rediss:// in {}": settings_of(port, scheme="redis"),
        "AGENTAPI_TLS_CERT_FILE and AGENTAPI_TLS_KEY_FILE": settings_of(asks, **files),
    }
    for remedy, settings in expected.items():
        told = remedies(settings)
        for server_of in ("redis", "broker"):
            variable = f"AGENTAPI_{server_of.upper()}_URL"
            assert remedy.format(variable) in told[f"{server_of}.unreachable"]
    missing = settings_of(port, tls_ca_file=tmp_path / "missing")
    assert set(remedies(missing).values()) == {"Correct AGENTAPI_TLS_CA_FILE."}


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.sign("one"), authority.sign("other-key")
    text = tmp_path / "text"
    text.write_text("nothing")
    faults: list[tuple[dict[str, Any], str]] = [
        ({"tls_ca_file": tmp_path / "missing"}, "AGENTAPI_TLS_CA_FILE.*no such file"),
        ({"tls_ca_file": text}, "AGENTAPI_TLS_CA_FILE.*PEM"),
        ({"tls_key_file": one.key}, "without AGENTAPI_TLS_CERT_FILE"),
        ({"tls_cert_file": one.cert, "tls_key_file": other.key}, "does not belong"),
        ({"tls_cert_file": one.cert, "tls_key_file": text}, "AGENTAPI_TLS_KEY_FILE.*PEM"),
    ]
    for tls, wanted in faults:
        settings = settings_of(1, **tls)
        with pytest.raises(ConfigurationError, match=wanted):
            connect(settings)
        with pytest.raises(ConfigurationError, match=wanted):
            celery_settings(settings)


def test_rabbitmq_is_verified_too(authority: Authority) -> None:
    url = "amqps://agents:hunter2@Rabbit.example//"
    full = Settings(broker_url=url, tls_ca_file=str(authority.file))
    ssl = celery_settings(full)["broker_use_ssl"]
    assert ssl["server_hostname"] == "rabbit.example"
    assert ssl["ca_certs"] == str(authority.file)
    assert ssl["cert_reqs"].name == "CERT_REQUIRED"
    ca = full.model_copy(update={"tls_verify": "ca"})
    assert "server_hostname" not in celery_settings(ca)["broker_use_ssl"]


def test_sentinels_with_tls() -> None:
    url = "sentinels://:hunter2@one:1;sentinels://:hunter2@two:2/0"
    told = celery_settings(Settings(redis_url=url))
    assert told["broker_url"] == url.replace("sentinels", "sentinel")
    assert told["broker_transport_options"]["sentinel_kwargs"]["ssl"] is True
    assert told["broker_use_ssl"]["ssl_check_hostname"] is True
    client = connect(Settings(redis_url=url, sentinel_master="mymaster"))
    pool: Any = client.connection_pool
    [first, _] = pool.sentinel_manager.sentinels
    for made in (pool.connection_class, first.connection_pool.connection_class):
        assert "SSL" in made.__name__
