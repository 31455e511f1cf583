"""The gateway's settings: those of every process, and its own under `AGENTAPI_GATEWAY_`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from agentapi import Settings
from agentapi.settings import Seconds, read_settings, split_list
from orchestrator.gateway.http.cors import ORIGIN
from orchestrator.gateway.http.local_only import is_local_name


class GatewaySettings(Settings):
    """Everything that can be set for a gateway process. Times are in seconds."""

    gateway_host: str = Field(
        default="127.0.0.1",
        description="Address on which the gateway listens. Any address other than loopback "
        "requires keys.",
    )
    gateway_port: int = Field(
        default=8080,
        ge=0,
        le=65_535,
        description="Port on which the gateway listens; 0 picks a free port.",
    )
    gateway_requests_per_minute: int = Field(
        default=600, ge=0, description="Maximum requests of one tenant per minute; 0 for no limit."
    )
    gateway_turns_in_flight: int = Field(
        default=200,
        ge=0,
        description="Maximum turns of one tenant that wait or run; 0 for no limit.",
    )
    gateway_max_body_bytes: int = Field(
        default=1_048_576, ge=1, description="Maximum size of a request body, in bytes."
    )
    gateway_wait: Seconds = Field(
        default=600,
        description="Maximum wait of a request that neither streams nor runs in the background.",
    )
    gateway_heartbeat: Seconds = Field(
        default=15, description="Time between keep-alive comments in a stream without events."
    )
    gateway_stream_buffer: int = Field(
        default=1_000, ge=1, description="Maximum buffered events for one slow client of a stream."
    )
    gateway_stall: Seconds = Field(
        default=30, description="How long a client may stop reading before its stream is closed."
    )
    gateway_require_keys: bool = Field(
        default=False,
        description="Whether every request needs a key, even before the first key is created.",
    )
    gateway_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Addresses of proxies whose X-Forwarded-For is trusted, separated by commas.",
    )
    gateway_connections: int = Field(
        default=4_096, ge=1, description="Maximum connections of one gateway process."
    )
    gateway_header_timeout: Seconds = Field(
        default=10, description="Time limit for receiving a request's headers."
    )
    gateway_body_timeout: Seconds = Field(
        default=60, description="Time limit for receiving a request's body."
    )
    gateway_body_idle: Seconds = Field(
        default=10, description="Maximum pause while a client sends a request's body."
    )
    gateway_wrong_keys_per_minute: int = Field(
        default=30,
        ge=0,
        description="Maximum requests without a valid key from one address per minute; 0 for no "
        "limit.",
    )
    gateway_streams: int = Field(
        default=2_000,
        ge=0,
        description="Maximum open streams and waiting requests of one tenant in one gateway; 0 for "
        "no limit.",
    )
    gateway_stored_bytes: int = Field(
        default=1_073_741_824,
        ge=0,
        description="Approximate maximum bytes in Redis of one tenant's conversations and turns; 0 "
        "for no limit.",
    )
    gateway_fork_bytes: int = Field(
        default=16_777_216,
        ge=1,
        description="Maximum size of a history that previous_response_id copies, in bytes, "
        "including images and files.",
    )
    gateway_console: bool = Field(
        default=True, description="Whether the gateway serves the console."
    )
    gateway_session: Seconds = Field(
        default=43_200, description="How long a session of the console lasts."
    )
    gateway_metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="Port on which the gateway serves Prometheus metrics, including those of the "
        "whole fleet; 0 picks a free port. No metrics when not set.",
    )
    gateway_addresses: Literal["none", "public", "any"] = Field(
        default="public",
        description="Which URLs of images and files are passed to providers: none (data only), "
        "public, or any.",
    )

    gateway_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of web pages that may call the gateway from a browser (CORS), "
        "separated by commas, such as https://app.example.org; * for any page.",
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the gateway."""
        return is_local_name(self.gateway_host)

    @field_validator("gateway_proxies", "gateway_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value)

    @field_validator("gateway_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(ORIGIN.fullmatch(origin) for origin in value):
            raise ValueError(
                "expected origins such as https://app.example.org or http://localhost:3000, "
                "without a path"
            )
        return value


def load_gateway_settings(**overrides: Any) -> GatewaySettings:
    """Read a gateway's settings from the environment and `.env`.

    Args:
        overrides: Settings by field name that win over the environment.

    Raises:
        ConfigurationError: A value is not valid; names the variable, and never a secret.
    """
    return read_settings(GatewaySettings, overrides)
