"""Recorders, labels, the relay and the server of metrics."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from agentapi import ConfigurationError
from agentapi.metrics import NoMetrics, Recorder, install, record_into, recorder
from agentapi.metrics.catalog import (
    ATTEMPTS,
    CATALOG,
    FLEET,
    LOOP_LAG,
    MODEL_CALLS,
    STREAM_RESUMES,
    TOOL_CALLS,
    TOOL_DURATION,
    TURN_SLOTS,
    TURNS_ACCEPTED,
    WRITES_REFUSED,
)
from agentapi.metrics.labels import MAX_VALUES, OTHER, LabelValues
from agentapi.metrics.prometheus import FOLD_AT, PrometheusRecorder
from agentapi.metrics.relay import MOST_BYTES, Relay, replay
from agentapi.metrics.server import MetricsServer
from agentapi.stores import Claim, ClaimCause, Lease
from agentapi.turns import CallBook, Decision, Turn, TurnStatus, Verdict
from orchestrator.stack.worker_command import metrics_ports
from tests.faults import until
from workers.turns.measuring import cause_of


@pytest.fixture(autouse=True)
def _own_recorder() -> Iterator[None]:
    before = recorder()
    yield
    install(before)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> PrometheusRecorder:
    return PrometheusRecorder(registry)


def test_a_process_that_serves_no_metrics_measures_nothing() -> None:
    nothing: Recorder = NoMetrics()
    nothing.count(ATTEMPTS, "first")
    nothing.observe(LOOP_LAG, 1.0)
    nothing.watch(TURN_SLOTS, lambda: 1)
    assert not recorder().on


def test_counters_add_and_histograms_measure(
    registry: CollectorRegistry, metrics: PrometheusRecorder
) -> None:
    metrics.count(ATTEMPTS, "first")
    metrics.count(ATTEMPTS, "first", by=2)
    metrics.observe(TOOL_DURATION, 0.2, "look")
    metrics.observe(TOOL_DURATION, -5.0, "look")
    metrics.watch(TURN_SLOTS, lambda: 64)
    assert registry.get_sample_value(ATTEMPTS.name, {"cause": "first"}) == 3
    assert registry.get_sample_value(f"{TOOL_DURATION.name}_count", {"tool": "look"}) == 2
    assert registry.get_sample_value(f"{TOOL_DURATION.name}_sum", {"tool": "look"}) == 0.2
    assert registry.get_sample_value(TURN_SLOTS.name) == 64


def test_no_label_grows_without_bound(
    registry: CollectorRegistry, metrics: PrometheusRecorder
) -> None:
    for number in range(3 * MAX_VALUES):
        metrics.count(TOOL_CALLS, f"tool{number}", "ok")
    samples = [
        sample
        for family in registry.collect()
        for sample in family.samples
        if sample.name == TOOL_CALLS.name
    ]
    assert len(samples) == MAX_VALUES + 1
    others = registry.get_sample_value(TOOL_CALLS.name, {"tool": OTHER, "outcome": "ok"})
    assert others == 2 * MAX_VALUES
    # The other labels of the metric, and other labels at all, have their own room.
    metrics.count(TURNS_ACCEPTED, "support")
    assert registry.get_sample_value(TURNS_ACCEPTED.name, {"agent": "support"}) == 1


@pytest.mark.parametrize("text", ["", "what I said: hello!", "ä", "x" * 101, "a\nb", 'a"b'])
def test_what_is_not_a_name_is_not_a_value(text: str) -> None:
    assert LabelValues().bounded("tool", text) == OTHER


@pytest.mark.parametrize("text", ["support", "gpt-5.1", "openai/gpt-5:free", "POST", "/v1/{id}"])
def test_names_of_agents_models_and_routes_are_values(text: str) -> None:
    assert LabelValues().bounded("model", text) == text


def test_every_metric_has_a_good_name_and_a_text() -> None:
    assert len({metric.name for metric in CATALOG}) == len(CATALOG)
    for metric in CATALOG:
        assert metric.name.startswith("agentapi_")
        assert metric.text.endswith(".")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        forbidden = {"conversation", "turn", "user", "tenant", "worker", "url"}
        assert not forbidden & set(metric.labels)


def test_gauges_of_the_fleet_are_not_those_of_a_process(registry: CollectorRegistry) -> None:
    PrometheusRecorder(registry)
    exported = generate_latest(registry).decode()
    assert not [metric.name for metric in FLEET if f"# TYPE {metric.name} " in exported]


def test_a_program_records_into_its_own_registry(registry: CollectorRegistry) -> None:
    record_into(registry)
    recorder().count(TURNS_ACCEPTED, "support")
    assert registry.get_sample_value(TURNS_ACCEPTED.name, {"agent": "support"}) == 1
    with pytest.raises(ValueError, match="Duplicated"):
        record_into(registry)


def test_threads_lose_no_count(registry: CollectorRegistry, metrics: PrometheusRecorder) -> None:
    def work() -> None:
        for number in range(500):
            metrics.count(MODEL_CALLS, "p", f"m{number % 7}", "ok")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    samples = (s for family in registry.collect() for s in family.samples)
    assert sum(s.value for s in samples if s.name == MODEL_CALLS.name) == 2000


def test_a_relay_carries_what_it_heard(
    registry: CollectorRegistry, metrics: PrometheusRecorder
) -> None:
    relay = Relay()
    relay.count(ATTEMPTS, "lease_expired")
    relay.observe(TOOL_DURATION, 0.5, "look")
    relay.watch(TURN_SLOTS, lambda: 1)
    heard = orjson.loads(orjson.dumps(relay.heard()))
    replay([*heard, ["agentapi_of_another_release_total", 1], [ATTEMPTS.name, 1]], metrics)
    assert registry.get_sample_value(ATTEMPTS.name, {"cause": "lease_expired"}) == 1
    assert registry.get_sample_value(f"{TOOL_DURATION.name}_sum", {"tool": "look"}) == 0.5
    assert registry.get_sample_value(TURN_SLOTS.name) is None


def test_alerts_see_the_first_increase(registry: CollectorRegistry) -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    PrometheusRecorder(registry)
    for script in ("record", "commit", "release", "park", "suspend"):
        assert registry.get_sample_value(WRITES_REFUSED.name, {"script": script}) == 0
    for cause in ClaimCause:
        begins = cause is ClaimCause.WOKEN
        value = registry.get_sample_value(ATTEMPTS.name, {"cause": cause})
        assert value == (None if begins else 0)
    assert registry.get_sample_value(STREAM_RESUMES.name) == 0


def test_nothing_is_kept_for_ever_if_nobody_asks(metrics: PrometheusRecorder) -> None:
    for _ in range(3 * FOLD_AT):
        metrics.observe(LOOP_LAG, 0.1)
    assert len(metrics._heard) < FOLD_AT


def test_a_histogram_has_its_buckets(
    registry: CollectorRegistry, metrics: PrometheusRecorder
) -> None:
    for seconds in (0.005, 0.0051, 1000.0):
        metrics.observe(TOOL_DURATION, seconds, "look")
    name, labels = f"{TOOL_DURATION.name}_bucket", {"tool": "look"}
    counts = {
        bound: registry.get_sample_value(name, {**labels, "le": bound})
        for bound in ("0.005", "0.025", "300.0", "+Inf")
    }
    assert counts == {"0.005": 1, "0.025": 2, "300.0": 2, "+Inf": 3}


def test_a_woken_turn_says_what_it_waited_for() -> None:
    def cause(book: CallBook, failures: int = 0) -> str:
        turn = Turn(
            turn_id="t",
            conversation_id="c",
            agent="a",
            input="hi",
            status=TurnStatus.RUNNING,
            failures=failures,
        )
        lease = Lease(conversation_id="c", turn_id="t", epoch=1, token="x", generation=0)
        return cause_of(
            Claim(lease=lease, turn=turn, steps=(), history=(), calls=book, cause=ClaimCause.WOKEN)
        )

    allowed = {"c": Decision(verdict=Verdict.APPROVED)}
    assert cause(CallBook()) == "provider_wait"
    assert cause(CallBook(decisions=allowed)) == "approval"
    assert cause(CallBook(decisions=allowed), failures=1) == "provider_wait"
    assert cause(CallBook(children={"c": ()})) == "children"


def test_a_relay_fits_into_a_pipe() -> None:
    relay = Relay()
    for number in range(10_000):
        relay.count(TOOL_CALLS, f'{number}"' + "ä" * 1000, "ok")
    assert MOST_BYTES / 2 < len(orjson.dumps(relay.heard())) < 60_000


def _get(server: MetricsServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_the_server_shows_what_was_counted_and_nothing_else() -> None:
    server = MetricsServer("127.0.0.1", 0, setting="AGENTAPI_METRICS_PORT")
    server.start()
    try:
        recorder().count(ATTEMPTS, "first")
        status, text = _get(server, "/metrics")
        assert status == 200
        assert 'agentapi_attempts_total{cause="first"} 1.0' in text
        assert "agentapi_build_info{" in text
        assert "process_resident_memory_bytes" in text
        assert "_created" not in text
        assert _get(server, "/")[0] == 404
        assert _get(server, "/metrics", "POST")[0] == 404
    finally:
        server.stop()
    assert not recorder().on
    with pytest.raises(OSError, match="refused"):
        _get(server, "/metrics")


def test_a_slow_client_keeps_nobody_waiting() -> None:
    server = MetricsServer("127.0.0.1", 0, setting="AGENTAPI_METRICS_PORT")
    server.start()
    slow = http.client.HTTPConnection(server.host, server.port, timeout=10)
    try:
        slow.connect()
        assert _get(server, "/metrics")[0] == 200
    finally:
        slow.close()
        server.stop()


def test_a_taken_port_says_which_setting_to_change() -> None:
    first = MetricsServer("127.0.0.1", 0, setting="AGENTAPI_METRICS_PORT")
    first.start()
    try:
        with pytest.raises(ConfigurationError, match=r"AGENTAPI_METRICS_PORT.*its own port"):
            MetricsServer("127.0.0.1", first.port, setting="AGENTAPI_METRICS_PORT")
    finally:
        first.stop()


def test_a_replacement_takes_the_port_when_it_becomes_free() -> None:
    first = MetricsServer("127.0.0.1", 0, setting="AGENTAPI_METRICS_PORT")
    first.start()
    second = MetricsServer("127.0.0.1", first.port, setting="AGENTAPI_METRICS_PORT", waits=True)
    try:
        second.start()
        assert second.port == first.port
        first.stop()

        def serves() -> bool:
            try:
                return _get(second, "/metrics")[0] == 200
            except OSError:
                return False

        until(serves)
    finally:
        second.stop()


def test_a_replacement_may_stop_before_the_port_is_free() -> None:
    first = MetricsServer("127.0.0.1", 0, setting="AGENTAPI_METRICS_PORT")
    second = MetricsServer("127.0.0.1", first.port, setting="AGENTAPI_METRICS_PORT", waits=True)
    second.start()
    second.stop()
    first.start()
    first.stop()


def test_each_process_of_a_command_has_a_port_of_its_own() -> None:
    ports = metrics_ports(["w-1", "w-2"], 9464)
    assert ports == {
        "w-1": {"AGENTAPI_METRICS_PORT": "9464"},
        "w-2": {"AGENTAPI_METRICS_PORT": "9465"},
    }
    # Not set, or each takes a free one.
    assert metrics_ports(["w-1", "w-2"], None) == metrics_ports(["w-1", "w-2"], 0) == {}
    with pytest.raises(ConfigurationError, match="the last port is 65535"):
        metrics_ports(["w-1", "w-2"], 65_535)
