"""Scripts that Redis does not have: after a restart, a failover, or SCRIPT FLUSH."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from agentapi import load_settings
from agentapi.ids import create_turn_id
from agentapi.redis.keys import conversation_keys
from agentapi.stores import RedisTurnStore
from agentapi.turns import NewTurn
from tests.conformance.stores import C, completed, on_redis
from tests.faults import until


def test_a_script_that_redis_lacks_is_loaded(redis_url: str) -> None:
    bench = on_redis(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
        lease = bench.claim(bench.enqueue()).lease
        client.script_flush()
        bench.store.commit(lease, completed(lease.turn_id))
    assert [message.content for message in bench.store.history(C)] == ["hi", "yo"]
    bench.store.close()


def test_many_at_once_run_in_order_when_redis_lacks_the_script(redis_url: str) -> None:
    bench = on_redis(redis_url)
    turns = [
        NewTurn(turn_id=create_turn_id(C), conversation_id=C, agent="a", input=f"{n}")
        for n in range(5)
    ]
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
        client.config_resetstat()
        bench.store.enqueue(turns)
        stats: Any = client.info("commandstats")
        # None fails and is run again behind those that follow it.
        assert stats["cmdstat_eval"]["calls"] == 1
        assert stats["cmdstat_evalsha"]["calls"] == 4
        assert stats["cmdstat_evalsha"]["failed_calls"] == 0
        assert not any(name.startswith("cmdstat_script") for name in stats)
        inbox: Any = client.lrange(conversation_keys(C).inbox, 0, -1)
    assert [turn_id.decode() for turn_id in inbox] == [turn.turn_id for turn in turns]
    bench.store.close()


def test_a_thread_that_keeps_its_connection_survives_a_cut(redis_url: str) -> None:
    store = RedisTurnStore(load_settings(redis_url=redis_url), keep_connections=True)
    assert store.elect("one", ttl=60).leads
    with redis.Redis.from_url(redis_url) as client:
        connected = {found["id"] for found in client.client_list()}
        assert store.elect("one", ttl=60).leads
        # The same connection: none is new.
        assert {found["id"] for found in client.client_list()} <= connected
        client.client_kill_filter(_type="normal", skipme=True)
        assert store.elect("one", ttl=60).leads
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(store.elect, "one", ttl=60).result().leads
        store.close()
        until(lambda: len(client.client_list()) == 1, what="the end of all connections")
