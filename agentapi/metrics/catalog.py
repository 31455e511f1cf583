"""All metrics. Nothing else is exported under the prefix ``agentapi_``."""

from __future__ import annotations

from typing import Final

from agentapi.metrics.recorder import Metric

_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_WAITS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TURNS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# The buckets of OpenTelemetry's `gen_ai.client.operation.duration`.
_MODEL: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56),
    *(5.12, 10.24, 20.48, 40.96, 81.92),
)
_TOOLS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


def _counter(name: str, text: str, *labels: str, begins: tuple[str, ...] = ()) -> Metric:
    return Metric(
        name=f"agentapi_{name}_total", kind="counter", text=text, labels=labels, begins=begins
    )


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(name=f"agentapi_{name}", kind="gauge", text=text, labels=labels)


def _seconds(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(
        name=f"agentapi_{name}_seconds",
        kind="histogram",
        text=text,
        labels=labels,
        buckets=buckets,
    )


UNKNOWN: Final = "unknown"
"""The value of a label whose value is unknown."""

TURNS_ACCEPTED: Final = _counter(
    "turns_accepted", "Turns that this process wrote into Redis.", "agent"
)
TURNS_ENDED: Final = _counter(
    "turns_ended",
    "Turns that ended, with the code of the error for failed ones.",
    "agent",
    "status",
    "reason",
)
TURN_DURATION: Final = _seconds(
    "turn_duration", "From a turn's acceptance to its end.", _TURNS, "agent", "status"
)
DISPATCH_WAIT: Final = _seconds(
    "turn_dispatch_wait",
    "From the time at which a turn could run to its claim; long waits mean too few workers.",
    _WAITS,
    "queue",
)
INBOX_WAIT: Final = _seconds(
    "turn_inbox_wait",
    "Time that a turn waited behind others of its conversation; more workers do not shorten it.",
    _WAITS,
    "agent",
)
ATTEMPTS: Final = _counter(
    "attempts",
    "Claimed turns, by why they were claimed.",
    "cause",
    begins=(
        *("first", "lease_expired", "worker_stopped", "provider_wait", "approval", "children"),
        *("client", "retried", "repeated"),
    ),
)
ATTEMPT_DURATION: Final = _seconds(
    "attempt_duration", "From a claim to its end.", _TURNS, "agent", "outcome"
)
TURNS_IN_FLIGHT: Final = _gauge("turns_in_flight", "Turns that this worker process is running.")
TURN_SLOTS: Final = _gauge("turn_slots", "Turns that this worker process can run at the same time.")
WRITES_REFUSED: Final = _counter(
    "writes_refused",
    "Writes refused because another worker owns the turn.",
    "script",
    begins=("record", "commit", "release", "park", "suspend"),
)

MODEL_CALLS: Final = _counter(
    "model_calls", "Calls of models, by their result.", "provider", "model", "outcome"
)
MODEL_CALL_DURATION: Final = _seconds(
    "model_call_duration", "Duration of a successful model call.", _MODEL, "provider", "model"
)
MODEL_FIRST_CHUNK: Final = _seconds(
    "model_first_chunk",
    "Time to the first text of a streamed model call.",
    _MODEL,
    "provider",
    "model",
)
TOKENS: Final = _counter(
    "tokens",
    "Tokens as counted by providers; cached tokens are part of the input.",
    "provider",
    "model",
    "kind",
)
COST: Final = _counter(
    "cost", "Cost of model calls according to AGENTAPI_PRICES.", "provider", "model"
)
PROVIDER_WAITS: Final = _counter(
    "provider_waits", "Model calls that had to wait for their provider.", "provider", "reason"
)
PROVIDER_BREAKER_OPEN: Final = _gauge(
    "provider_breaker_open",
    "1 while the provider is paused after failures, as far as this process knows.",
    "provider",
)
PROVIDER_HELD: Final = _gauge(
    "provider_held",
    "1 while the provider has asked clients to wait, as far as this process knows.",
    "provider",
)
TOOL_CALLS: Final = _counter("tool_calls", "Calls of tools, by their result.", "tool", "outcome")
TOOL_DURATION: Final = _seconds("tool_duration", "Duration of a tool call.", _TOOLS, "tool")

SCRIPT_DURATION: Final = _seconds(
    "redis_script_duration",
    "Round trip of a Lua script, or of several sent together.",
    _SHORT,
    "script",
)
ARCHIVE_MOVES: Final = _counter(
    "archive_moves",
    "Conversations that moved to the archive (out) or back to Redis (in). Outcome 'changed': the "
    "conversation was used meanwhile; 'failed': an error stopped the move.",
    "direction",
    "outcome",
)
ARCHIVED_TURNS: Final = _counter(
    "archived_turns",
    "Turns whose records moved to the archive (out) or back to Redis (in). Outcome 'changed': the "
    "turn was changed meanwhile; 'failed': an error stopped the move.",
    "direction",
    "outcome",
)
LOOP_LAG: Final = _seconds(
    "event_loop_lag", "How late the event loop runs a timer, measured once a second.", _SHORT
)

GATEWAY_REQUESTS: Final = _counter(
    "gateway_requests", "Requests, by route and class of status.", "route", "method", "code"
)
GATEWAY_REQUEST_DURATION: Final = _seconds(
    "gateway_request_duration",
    "Duration of a request; for a stream, until its end.",
    _TURNS,
    "route",
)
GATEWAY_STREAMS: Final = _gauge("gateway_streams", "Open streams and waiting requests.")
GATEWAY_REFUSALS: Final = _counter(
    "gateway_refusals", "Requests refused with 401, 403, 413 or 429, by error code.", "reason"
)
STREAM_RESUMES: Final = _counter("stream_resumes", "Streams that clients resumed after an event.")

# Metrics of the whole fleet, from Redis. Only gateways export them, all with the same values: use
# max().
STORE_UP: Final = _gauge("store_up", "1 if Redis answered when the metrics were asked for.")
PARTITIONS_MISSING: Final = _gauge(
    "partitions_missing",
    "Partitions (of 256) whose cluster shard did not answer; their turns are not counted.",
)
TURNS_READY: Final = _gauge(
    "turns_ready", "Turns of the fleet that can run but have no worker.", "queue"
)
TURNS_RUNNING: Final = _gauge("turns_running", "Turns of the fleet that are running on a worker.")
TURNS_PARKED: Final = _gauge(
    "turns_parked", "Turns of the fleet that wait for a provider, approvals or turns.", "reason"
)
OLDEST_READY: Final = _gauge(
    "oldest_ready_turn_age_seconds", "How long the oldest ready turn has waited; 0 if none waits."
)
SWEEP_AGE: Final = _gauge("sweep_age_seconds", "Time since the fleet's last complete sweep.")

BUILD_INFO: Final = _gauge("build_info", "Always 1.", "version", "protocol", "python")

CATALOG: Final[tuple[Metric, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
"""All of the above, in this order."""

FLEET: Final = (
    STORE_UP,
    PARTITIONS_MISSING,
    TURNS_READY,
    TURNS_RUNNING,
    TURNS_PARKED,
    OLDEST_READY,
    SWEEP_AGE,
)
"""Metrics of the whole fleet, which a gateway reads from Redis when it is scraped."""
