"""The gateway's settings are read like all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentapi import load_settings
from agentapi.errors import ConfigurationError
from orchestrator.gateway.settings import load_gateway_settings


def test_the_environment_and_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "AGENTAPI_GATEWAY_PORT=9000\nAGENTAPI_GATEWAY_HOST=::1\nAGENTAPI_QUEUES=3\n"
    )
    monkeypatch.setenv("AGENTAPI_GATEWAY_HOST", "localhost")
    monkeypatch.setenv("AGENTAPI_GATEWAY_PROXIES", "10.0.0.1, 10.0.0.2,")
    monkeypatch.setenv("AGENTAPI_GATEWAY_NO_SUCH_SETTING", "1")
    settings = load_gateway_settings(gateway_wait=5)
    assert (settings.gateway_port, settings.gateway_host) == (9000, "localhost")
    assert settings.gateway_proxies == ("10.0.0.1", "10.0.0.2")
    assert (settings.gateway_wait, settings.queues) == (5, 3)


def test_a_wrong_value_names_the_variable_and_concerns_the_gateway_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTAPI_GATEWAY_PORT", "many")
    with pytest.raises(ConfigurationError, match="AGENTAPI_GATEWAY_PORT is 'many', ") as caught:
        load_gateway_settings()
    assert "hunter2" not in str(caught.value)
    assert load_settings().queues == 8
