"""The tools of the chaos runs do what they are for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.stack import Child, start_valkey
from tests.chaos import memory
from tests.chaos.clock import clock_off
from tests.chaos.disk import full_disk
from tests.chaos.figures import publish, spread
from tests.chaos.fleet import beside, lose_machine
from tests.chaos.options import parse
from tests.chaos.plan import Plan, settled
from tests.chaos.proxy import Network, Proxies, Proxy
from tests.chaos.report import options
from tests.faults import until


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    with Proxies() as running:
        yield running


def ask(proxy: Proxy, timeout: float = 30) -> object:
    once = Retry(NoBackoff(), 0)
    with redis.Redis(port=proxy.port, socket_timeout=timeout, retry=once) as client:
        try:
            return client.incr("asked")
        except redis.TimeoutError:
            return "no answer"
        except redis.ConnectionError:
            return "refused"


def test_a_network_that_fails_and_is_healed(redis_url: str, proxies: Proxies) -> None:
    proxy = proxies.before(int(redis_url.rpartition(":")[2].partition("/")[0]))
    assert ask(proxy) == 1
    proxies.become(proxy, Network.HANGS)
    assert ask(proxy, 0.3) == "no answer"
    proxies.become(proxy, Network.CUT)
    assert ask(proxy) == "refused"
    proxies.become(proxy, Network.WELL)
    until(lambda: ask(proxy) == 2)


def test_a_network_that_loses_answers(redis_url: str, proxies: Proxies) -> None:
    proxy = proxies.before(int(redis_url.rpartition(":")[2].partition("/")[0]))
    with (
        redis.Redis.from_url(redis_url) as direct,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as kept,
    ):
        proxies.become(proxy, Network.LOSES_ANSWERS)
        kept.sendall(b"INCR asked\r\n")
        until(lambda: direct.get("asked") == b"1")
        kept.settimeout(0.3)
        with pytest.raises(TimeoutError):
            kept.recv(64)
        proxies.become(proxy, Network.WELL)
        kept.settimeout(60)
        assert kept.recv(64) == b""


def test_a_connection_that_is_kept_is_cut(redis_url: str, proxies: Proxies) -> None:
    proxy = proxies.before(int(redis_url.rpartition(":")[2].partition("/")[0]))
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as kept:
        kept.sendall(b"PING\r\n")
        assert kept.recv(64) == b"+PONG\r\n"
        proxies.become(proxy, Network.CUT)
        assert kept.recv(64) == b""


def refusal(client: redis.Redis) -> str:
    """What a server says to something large, if it refuses."""
    try:
        client.set("during", "y" * 1000)
    except redis.ResponseError as error:
        return str(error)
    return ""


def test_a_full_disk_refuses_writes_until_it_is_not(tmp_path: Path) -> None:
    valkey, url = start_valkey(tmp_path, fsync="always")
    with redis.Redis.from_url(url) as client:
        client.set("before", "x")
        with full_disk(valkey, url):
            until(lambda: refusal(client).startswith("MISCONF"))
        client.set("after", "z")
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
    valkey.kill()
    valkey, _ = start_valkey(tmp_path, int(url.rpartition(":")[2].partition("/")[0]))
    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.mget("before", "after") == ["x", "z"]
    valkey.stop()


def test_a_clock_that_is_off(tmp_path: Path) -> None:
    code = "import time; print(time.time(), time.monotonic())"
    for off in (-3600, 3600):
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **clock_off(off, tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        wall, monotonic = map(float, answer.stdout.split())
        assert wall - time.time() == pytest.approx(off, abs=60)
        assert monotonic - time.monotonic() == pytest.approx(0, abs=60)


def sleeper(tmp_path: Path, code: str = "pass") -> Child:
    """A process with another one beside it."""
    lines = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); "
    return Child(
        "sleeper",
        [sys.executable, "-c", f"{lines}{code}; print('ready', flush=True); time.sleep(60)"],
        log=tmp_path / "sleeper.log",
    )


def test_a_lost_machine_takes_everything_on_it(tmp_path: Path) -> None:
    from tests.chaos.fleet import Fleet

    fleet = Fleet(tmp_path, workers=0, flower=False, redis_url="redis://127.0.0.1:1/0")
    worker = sleeper(tmp_path)
    fleet.workers.append(worker)
    until(lambda: "ready" in worker.log.read_text())
    until(lambda: beside(worker))
    [other] = beside(worker)
    lose_machine(fleet, worker)
    assert worker.exit_code == -9
    until(lambda: not other.is_running() or other.status() == psutil.STATUS_ZOMBIE)
    assert fleet.workers == []


@pytest.mark.parametrize("by_kernel", [True, False])
def test_too_much_memory_is_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_kernel: bool
) -> None:
    limits = memory.MemoryLimits(200 * 2**20)
    if by_kernel and not limits.by_kernel:
        limits.close()
        pytest.skip("this user may make no memory control groups")
    limits.by_kernel = by_kernel
    code = "time.sleep(0.5); taken = [bytearray(b'x' * 2**20) for _ in range(1000)]"
    worker = sleeper(tmp_path, code)
    limits.keep(worker)
    until(lambda: "ready" in worker.log.read_text() or beside(worker))
    others = beside(worker)
    until(lambda: worker.exit_code is not None)
    assert worker.exit_code == -9
    for other in others:
        other.kill()
    assert limits.kills >= 1
    limits.close()


def test_options_come_from_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--turns", "5", "--lease", "2.5", "--old-version", "HEAD~1", "--publish"]
    plan = parse(Plan, words, "chaos", folder=tmp_path)
    assert (plan.turns, plan.lease, plan.old_version, plan.publish) == (5, 2.5, "HEAD~1", True)
    assert plan.kills == Plan.kills
    with pytest.raises(SystemExit):
        parse(Plan, ["--trouble", "3"], "chaos", folder=tmp_path)
    assert "--trouble" in capsys.readouterr().err


def test_servers_decide_which_faults_there_are(tmp_path: Path) -> None:
    plan = settled(Plan(folder=tmp_path))
    assert (plan.redis_restarts, plan.broker_flushes, plan.failovers) == (3, 3, 0)
    plan = settled(Plan(folder=tmp_path, store="sentinel", broker="rabbitmq", cuts=1))
    assert (plan.redis_restarts, plan.broker_flushes, plan.failovers) == (0, 0, 3)
    assert plan.broker_outages == 3
    for wrong, said in (
        ({"failovers": 1}, "--store sentinel"),
        ({"store": "sentinel", "redis_restarts": 1}, "--store single"),
        ({"store": "sentinel", "cuts": 1}, "--cuts"),
        ({"broker_outages": 1}, "--broker valkey or rabbitmq"),
        ({"moves": 1}, "--store cluster"),
        ({"store": "cluster"}, "--broker valkey or rabbitmq"),
        ({"node_timeout": 3.0}, "--store cluster"),
        ({"store": "cluster", "broker": "valkey", "node_timeout": 3.0, "stalls": 1}, "--stalls 0"),
        ({"store": "disk"}, "no store 'disk'"),
        ({"broker": "kafka"}, "no broker 'kafka'"),
    ):
        with pytest.raises(ValueError, match=said):
            settled(Plan(folder=tmp_path, **wrong))
    plan = settled(Plan(folder=tmp_path, store="cluster", broker="valkey"))
    assert (plan.failovers, plan.moves, plan.stalls, plan.broker_outages) == (3, 3, 3, 3)
    plan = settled(Plan(folder=tmp_path, store="cluster", broker="valkey", node_timeout=3.0))
    assert (plan.failovers, plan.stalls) == (3, 0)


def test_a_row_says_how_to_run_it_again(tmp_path: Path) -> None:
    plan = settled(Plan(folder=tmp_path, store="sentinel", lease=2.0, failovers=5, seed=7))
    assert options(plan) == "--store sentinel --lease 2 --failovers 5 --seed 7"
    assert options(settled(Plan(folder=tmp_path))) == "--seed 1"


def test_figures_are_put_into_their_region(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\n| what | n |\n| --- | --- |\n| one | 1 |\n<!-- /x -->\nb\n")
    publish("x", ["two", "2"], page)
    publish("x", ["one", "3"], page)
    assert page.read_text() == (
        "a\n<!-- x -->\n| what | n |\n| --- | --- |\n| one | 3 |\n| two | 2 |\n<!-- /x -->\nb\n"
    )
    with pytest.raises(LookupError, match="'y'"):
        publish("y", ["one", "1"], page)
    assert str(spread([3, 1, 2])) == "2.0 / 3.0 / 3.0 s"
    assert spread([]) is None
