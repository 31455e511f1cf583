"""Settings, from the environment and a `.env` file, with the prefix `AGENTAPI_`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from agentapi import environment
from agentapi.decoding.setting_faults import setting_fault
from agentapi.errors import ConfigurationError
from agentapi.logs import LogFormat, line
from agentapi.turns.budget import Price
from agentapi.turns.model import OnAbort, OnBusy
from agentapi.turns.model_size import ModelSize
from agentapi.turns.request_policy import DEFAULT_POLICY, POLICY_VALUES, RequestPolicy
from agentapi.urls import check_urls, is_cluster, parts_of

Seconds = Annotated[float, Field(gt=0)]

S = TypeVar("S", bound="Settings")

_POLICY_EXAMPLE = '{"instructions": "append", "sampling": "ignore"}'
_PREFIX: Final = "AGENTAPI_"
_GATEWAY: Final = "AGENTAPI_GATEWAY_"
_OTHER_VARIABLES: Final = frozenset(
    {"AGENTAPI_OFFLINE_DELAY", "AGENTAPI_OFFLINE_CHUNK_DELAY", "AGENTAPI_OFFLINE_CONTEXT"}
)
"""Variables of the provider `offline`, which are not settings of a process."""

_LIMITS_EXAMPLE = '{"openai": {"requests": 500, "tokens": 200000}}'


class ProviderLimits(BaseModel):
    """Limits of the whole fleet for a provider within any 60 seconds; None for no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)


class Settings(BaseSettings):
    """All settings with their defaults. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=environment.FILE,
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
    )

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Redis or Valkey that holds conversations and turns: a server, sentinels or a "
        "cluster.",
    )
    broker_url: str = Field(
        default_factory=lambda values: values.get("redis_url", ""),
        validate_default=True,
        description="Celery's broker; defaults to redis_url. Required when Redis is a cluster.",
    )
    redis_wait_replicas: int = Field(
        default=0,
        ge=0,
        description="Number of replicas that must acknowledge a new turn, or a turn's end, before "
        "it counts as written. Each such write waits for them.",
    )
    sentinel_master: str = Field(
        default="mymaster",
        description="Name of the master that the sentinels monitor, for sentinel:// URLs.",
    )
    archive_url: str | None = Field(
        default=None,
        description="Database for idle conversations and ended turns, such as "
        "postgresql://user@host/archive or sqlite:////var/lib/agentapi/archive.db; when not set, "
        "they stay in Redis.",
    )
    archive_after: Seconds = Field(
        default=604_800,
        description="How long a conversation must be idle before it moves to the archive.",
    )
    archive_turns_after: float = Field(
        default=3_600,
        ge=0,
        description="How long after its end a turn's record moves to the archive; 0 keeps records "
        "in Redis, which is required while processes of an older release are running.",
    )
    tls_ca_file: str | None = Field(
        default=None,
        description="PEM file with the CAs of Redis and RabbitMQ, for rediss://, "
        "rediss+cluster://, sentinels:// and amqps:// URLs; defaults to the system's CAs.",
    )
    tls_cert_file: str | None = Field(
        default=None,
        description="PEM file with the client certificate that this process presents to Redis and "
        "RabbitMQ.",
    )
    tls_key_file: str | None = Field(
        default=None,
        description="PEM file with the private key of tls_cert_file, if that file does not contain "
        "it.",
    )
    tls_verify: Literal["full", "ca"] = Field(
        default="full",
        description="How a server's certificate is verified: 'full' (its CA and its host name) or "
        "'ca' (its CA only).",
    )
    agents: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Modules whose agents the workers serve, separated by commas.",
    )
    memory: Literal["redis", "memory"] = Field(
        default="redis",
        description="Where conversations are stored. Workers accept only 'redis'.",
    )
    eager: bool = Field(
        default=False,
        description="Test mode: turns run inside enqueue, in memory, without servers.",
    )
    queues: int = Field(
        default=8, ge=1, le=256, description="Celery queues; must be the same for every process."
    )
    concurrency: int = Field(
        default=64, ge=1, le=5000, description="Maximum turns in flight in one worker process."
    )
    tool_threads: int = Field(
        default=64, ge=1, le=5000, description="Threads for synchronous tools in each process."
    )
    prompt_timeout: float = Field(
        default=30,
        gt=0,
        description="Time limit for a function given as system_prompt or tools.",
    )
    inbox_limit: int = Field(
        default=100, ge=1, description="Maximum turns of one conversation that wait or run."
    )
    max_message_bytes: int = Field(
        default=262_144, ge=1, description="Maximum length of a message, in UTF-8 bytes."
    )
    max_tool_result_bytes: int = Field(
        default=1_048_576,
        ge=1,
        description="Maximum length of a tool's result, in UTF-8 bytes; the rest is cut off.",
    )
    max_depth: int = Field(
        default=5, ge=0, description="Maximum depth to which turns may delegate to other turns."
    )
    max_children: int = Field(
        default=50, ge=1, description="Maximum turns that one turn waits for at the same time."
    )
    prices: dict[str, Price] = Field(
        default={},
        description="Prices of models per million tokens, as JSON: "
        '{"openai:gpt-5": {"input": 1.25, "output": 10, "cached": 0.125}}.',
    )
    models: dict[str, ModelSize] = Field(
        default={},
        description="Context and output tokens of models that the runtime does not know, or whose "
        'server allows less, as JSON: {"openai:my-model": {"context": 8192, "output": 1024}}; "*" '
        "stands for all others.",
    )
    approval_timeout: Seconds | None = Field(
        default=None,
        description="How long a tool call waits for approval; no limit when not set.",
    )
    client_tool_timeout: Seconds = Field(
        default=3_600,
        description="How long a turn waits for the output of a client tool before the model is "
        "told that there is none.",
    )
    max_attachment_bytes: int = Field(
        default=10_485_760,
        ge=0,
        description="Maximum total size of the images and files of one message, in bytes.",
    )
    turn_timeout: Seconds = Field(default=600, description="Maximum time that one attempt may run.")
    max_attempts: int = Field(
        default=3,
        ge=1,
        description="How many processes a turn may kill while it runs alone before it fails as "
        "poison.",
    )
    isolated_turns: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="Maximum suspect turns (turns that have lost a worker) that one worker runs at "
        "the same time, each in its own process.",
    )
    on_busy: OnBusy = Field(
        default=OnBusy.ENQUEUE,
        description="What happens to a new message when its conversation is busy: enqueue, reject, "
        "interrupt, replace, merge or steer.",
    )
    on_abort: OnAbort | None = Field(
        default=None,
        description="What a cancelled or failed turn leaves in the history: drop or keep. When not "
        "set, a failed turn keeps its messages and a cancelled one drops them.",
    )
    request_policy: Annotated[RequestPolicy, NoDecode] = Field(
        default=DEFAULT_POLICY,
        description="What requests to the gateway may decide about turns of agents without "
        'Agent(accepts=...), as JSON: {"instructions": "append", "sampling": "accept"}; must be '
        "the same for every process.",
    )
    unstored_retention: Seconds = Field(
        default=60,
        description="How long the result of a turn with store=false can be read.",
    )
    provider_max_retries: int = Field(
        default=3,
        ge=0,
        description="Quick retries of a model call after a transient failure, before the turn "
        "parks.",
    )
    provider_patience: float = Field(
        default=1800,
        ge=0,
        description="How long a turn waits for an unavailable provider, from its first failure; "
        "with 0 it fails after the quick retries.",
    )
    park_after: float = Field(
        default=5,
        ge=0,
        description="Maximum wait for a provider inside the worker; a longer wait parks the turn.",
    )
    provider_limits: Annotated[Mapping[str, ProviderLimits], NoDecode] = Field(
        default={},
        description="Limits of the whole fleet for each provider, per minute, as JSON: "
        '{"openai": {"requests": 500, "tokens": 200000}}.',
    )
    unknown_agent_wait: float = Field(
        default=10,
        ge=0,
        description="How long a turn whose agent a worker does not know is left to other workers "
        "before it fails.",
    )
    lease_ttl: Seconds = Field(
        default=10, description="Time without renewal after which a worker's leases expire."
    )
    heartbeat: Seconds = Field(default=3, description="Time between renewals of the leases.")
    sweep_interval: Seconds = Field(
        default=1, description="Time between two checks for overdue turns."
    )
    dispatch_grace: Seconds = Field(
        default=5, description="How long a wake-up may remain unclaimed before it is sent again."
    )
    watchdog: bool = Field(
        default=True,
        description="Whether a watchdog process hands a worker's turns to others if the worker is "
        "killed.",
    )
    shutdown_grace: float = Field(
        default=20, ge=0, description="How long turns may continue to run after SIGTERM."
    )
    turn_retention: Seconds = Field(
        default=7 * 86_400, description="How long an ended turn can be looked up."
    )
    turn_limit: int = Field(
        default=4_000_000,
        ge=0,
        description="Approximate number of ended turns of each status that are kept, if lists are "
        "on. Beyond it the oldest are deleted before their retention ends, with the unnamed "
        "conversations that were created for them alone. 0 for no limit.",
    )
    compact_turns: bool = Field(
        default=True,
        description="Whether an ended turn refers to the messages in its conversation's history "
        "instead of keeping a second copy. Turn it off while gateways or producers of an older "
        "release, which cannot read such turns, are running.",
    )
    events_retention: Seconds = Field(
        default=3_600, description="How long an ended turn's events can be read."
    )
    list_limit: int = Field(
        default=1_000_000,
        ge=0,
        description="Approximate number of conversations that can be listed, and of ended turns of "
        "each status if turn_limit is 0; 0 keeps no lists. Must be the same for every process.",
    )
    ends_limit: int = Field(
        default=200_000,
        ge=1,
        description="Approximate number of ends that are kept for clients that follow ends.",
    )
    ends_retention: Seconds = Field(
        default=3 * 86_400, description="How long an end is kept for clients that follow ends."
    )
    memory_ttl: Seconds | None = Field(
        default=None,
        description="Idle time after which a conversation is deleted; never when not set.",
    )
    redis_timeout: Seconds = Field(
        default=5, description="Maximum wait for an answer from Redis or the broker."
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="Port on which workers serve Prometheus metrics. The first worker process of a "
        "command uses this port, the others use the ports after it; 0 picks free ports. No metrics "
        "when not set.",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address on which metrics are served; they have no authentication.",
    )
    traces: bool | None = Field(
        default=None,
        description="Whether to export traces as OTLP over HTTP, configured by OpenTelemetry's own "
        "variables (OTEL_*). When not set, spans are created only in a program that has set its "
        "own tracer provider.",
    )
    trace_content: bool = Field(
        default=False,
        description="Whether traces contain the text of messages, replies and tool results.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Minimum level of log lines."
    )
    log_format: LogFormat = Field(
        default="text",
        description="Format of log lines: text, or json for one object per line.",
    )

    @field_validator("agents", mode="before")
    @classmethod
    def _split_agents(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator("request_policy", mode="before")
    @classmethod
    def _read_policy(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = orjson.loads(value or "{}")
            except orjson.JSONDecodeError as error:
                raise ValueError(f"expected JSON such as {_POLICY_EXAMPLE}; {error}") from error
        if isinstance(value, RequestPolicy):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a JSON object such as {_POLICY_EXAMPLE}")
        if unknown := ", ".join(sorted(value.keys() - POLICY_VALUES.keys())):
            raise ValueError(f"{unknown} is unknown, expected {', '.join(POLICY_VALUES)}")
        return RequestPolicy(**value)

    @field_validator("provider_limits", mode="before")
    @classmethod
    def _read_limits(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = orjson.loads(value or "{}")
            except orjson.JSONDecodeError as error:
                raise ValueError(f"expected JSON such as {_LIMITS_EXAMPLE}; {error}") from error
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a JSON object such as {_LIMITS_EXAMPLE}")
        return value

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _check_url(cls, value: str, info: ValidationInfo) -> str:
        if "://" not in value:
            # This default comes from an invalid redis_url, which is reported already.
            if not value and info.field_name == "broker_url":
                return value
            raise ValueError("expected a URL such as redis://127.0.0.1:6379/0")
        check_urls(value)
        if not is_cluster(value):
            return value
        if info.field_name == "broker_url":
            raise ValueError(
                "Celery cannot use a cluster as its broker: expected RabbitMQ, such as "
                "amqp://rabbitmq:5672//, or a Redis or Valkey of its own, such as "
                "redis://broker:6379/0"
            )
        parts = [urlsplit(part) for part in parts_of(value)]
        if len({part.scheme for part in parts}) > 1:
            raise ValueError("expected the same scheme for all nodes of a cluster")
        if any(part.path.strip("/") not in ("", "0") for part in parts):
            raise ValueError("a cluster has only database 0: expected a URL without a database")
        return value


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment and `.env`.

    Args:
        overrides: Settings by field name; they take precedence over the environment.

    Raises:
        ConfigurationError: A value is not valid; names the variable, and never a secret.
    """
    return read_settings(Settings, overrides)


def read_settings(kind: type[S], overrides: Mapping[str, Any]) -> S:
    """Read one class of settings from the environment and `.env`.

    Args:
        kind: `Settings`, or a subclass with the settings of one program.
        overrides: Settings by field name that win over the environment.

    Raises:
        ConfigurationError: A value is not valid; names the variable, and never a secret.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{_variable(problem['loc'])}{setting_fault(problem)}"
            for problem in error.errors(include_url=False)
            # This default depends on another setting, whose own error is listed already.
            if problem["type"] != "default_factory_not_called"
        )
        raise ConfigurationError(f"settings are not valid: {problems}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise environment.unreadable(error) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class UnknownVariable:
    """A variable that looks like a setting but is not one.

    Attributes:
        name: The variable.
        nearest: The setting that it resembles most, or None.
    """

    name: str
    nearest: str | None

    def __str__(self) -> str:
        meant = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.name} is not a setting and has no effect{meant}"


def unknown_variables(kind: type[Settings]) -> list[UnknownVariable]:
    """Variables in the environment and `.env` that begin with ``AGENTAPI_`` but are not settings.

    Args:
        kind: The settings of the program. A program without the gateway's own settings accepts
            all variables that begin with ``AGENTAPI_GATEWAY_``.
    """
    known = {_variable((name,)) for name in kind.model_fields} | _OTHER_VARIABLES
    serves = any(name.startswith("gateway_") for name in kind.model_fields)
    wrong = sorted(
        name
        for name in environment.names()
        # Names of settings are not case-sensitive.
        if name.upper().startswith(_PREFIX)
        and name.upper() not in known
        and (serves or not name.upper().startswith(_GATEWAY))
    )
    return [UnknownVariable(name=name, nearest=_nearest(name.upper(), known)) for name in wrong]


def warn_of_unknown_variables(kind: type[Settings], log: logging.Logger) -> None:
    """Log each of `unknown_variables`. Programs call this when they start."""
    for unknown in unknown_variables(kind):
        nearest = unknown.nearest or "none"
        log.warning(line("settings.unknown", variable=unknown.name, nearest=nearest))


def _nearest(name: str, known: Iterable[str]) -> str | None:
    # Imported only for a fault.
    from difflib import get_close_matches

    # Without the prefix that all have in common, and that makes all of them similar.
    shorter = {each.removeprefix(_PREFIX): each for each in known}
    found = get_close_matches(name.removeprefix(_PREFIX), shorter, n=1, cutoff=0.6)
    return shorter[found[0]] if found else None


def split_list(value: Any) -> Any:
    """The parts of a list in one variable, separated by commas; other values as they are."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _variable(location: tuple[int | str, ...]) -> str:
    return f"{_PREFIX}{str(location[0]).upper()}" if location else f"{_PREFIX}?"
