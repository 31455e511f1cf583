"""URLs of clusters, and where commands go."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from agentapi import RedisMemory, load_settings
from agentapi.errors import ConfigurationError
from agentapi.redis.connection import cluster_nodes, connect
from agentapi.redis.routes import guard_of, key_of, waited_of
from agentapi.urls import without_password

URL = "rediss+cluster://me:secret@one:7000;rediss+cluster://me:secret@two"
BROKER = "amqp://broker"


def test_nodes_and_their_account() -> None:
    nodes, options = cluster_nodes(load_settings(redis_url=URL, broker_url=BROKER))
    assert nodes == [("one", 7000), ("two", 6379)]
    assert options == {"username": "me", "password": "secret", "ssl": True}
    assert "secret" not in without_password(URL)


def test_nothing_connects_before_it_is_used() -> None:
    settings = load_settings(redis_url="redis+cluster://nowhere.invalid", broker_url=BROKER)
    connect(settings).close()
    RedisMemory(redis_url="redis+cluster://nowhere.invalid")


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        ({"redis_url": URL}, r"AGENTAPI_BROKER_URL.*cannot use a cluster.*RabbitMQ"),
        ({"redis_url": "redis://a", "broker_url": URL}, "cannot use a cluster"),
        ({"redis_url": f"{URL}/1", "broker_url": BROKER}, "only database 0"),
        ({"redis_url": f"{URL};redis+cluster://c", "broker_url": BROKER}, "same scheme"),
    ],
)
def test_what_a_cluster_cannot_be(urls: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        load_settings(**urls)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("HMGET", "a", "b"), b"a"),
        (("MEMORY USAGE", b"a"), b"a"),
        (("EVALSHA", "sha", 2, "a", "b", "c"), b"a"),
        (("EVAL", "return 1", 0), None),
        (("XREAD", b"COUNT", 3, b"STREAMS", "a", "0"), b"a"),
        (("TIME",), None),
        (("SCRIPT LOAD", "text"), None),
    ],
)
def test_the_key_of_a_command(command: tuple[object, ...], key: bytes | None) -> None:
    assert key_of(command) == key


@pytest.mark.parametrize("key", ["agentapi:{007}:due", "agentapi:gateway:acme:rate"])
def test_a_guard_is_beside_its_key(key: str) -> None:
    slot = key_slot(key.encode())
    assert key_slot(guard_of(key).encode()) == slot
    assert key_slot(waited_of(key).encode()) == slot
    assert guard_of(key) != waited_of(key)
