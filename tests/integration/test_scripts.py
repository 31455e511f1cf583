"""Scripts that Redis does not have: after a restart, a failover, or SCRIPT FLUSH."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from agentapi import load_settings
from agentapi.stores import RedisTurnStore
from tests.conformance.stores import C, completed, on_redis


def test_a_script_that_redis_lacks_is_loaded(redis_url: str) -> None:
    bench = on_redis(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
        lease = bench.claim(bench.enqueue()).lease
        client.script_flush()
        bench.store.commit(lease, completed(lease.turn_id))
    assert [message.content for message in bench.store.history(C)] == ["hi", "yo"]
    bench.store.close()


def test_a_script_that_redis_lacks_is_loaded_for_many_at_once(redis_url: str) -> None:
    bench = on_redis(redis_url)
    leases = [bench.claim(bench.enqueue(f"c:{n}"), f"c:{n}").lease for n in range(3)]
    with redis.Redis.from_url(redis_url) as client:
        client.script_flush()
        assert [renewal.held for renewal in bench.store.renew(leases)] == [True, True, True]
        # It is there now: no more than the scripts is sent.
        client.config_resetstat()
        bench.store.renew(leases)
        stats: Any = client.info("commandstats")
        counts = {name: found["calls"] for name, found in stats.items()}
        assert counts["cmdstat_evalsha"] == 3
        assert not any(name.startswith("cmdstat_script") for name in counts)
    bench.store.close()


def test_a_thread_that_keeps_its_connection_survives_a_cut(redis_url: str) -> None:
    store = RedisTurnStore(load_settings(redis_url=redis_url), keep_connections=True)
    assert store.elect("one", ttl=60)
    with redis.Redis.from_url(redis_url) as client:
        connected = {found["id"] for found in client.client_list()}
        assert store.elect("one", ttl=60)
        # The same connection: none is new.
        assert {found["id"] for found in client.client_list()} <= connected
        client.client_kill_filter(_type="normal", skipme=True)
        assert store.elect("one", ttl=60)
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(store.elect, "one", ttl=60).result()
        store.close()
        assert len(client.client_list()) == 1
