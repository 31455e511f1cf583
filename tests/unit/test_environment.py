"""Variables of the environment and of `.env`, and those that mean nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agentapi import Settings, load_settings
from agentapi.environment import names, variable
from agentapi.errors import ConfigurationError, ProviderMisconfigured
from agentapi.providers.offline import OfflineProvider
from agentapi.settings import unknown_variables, warn_of_unknown_variables
from orchestrator.gateway.settings import GatewaySettings
from tests.logged import logged


@pytest.fixture(autouse=True)
def _in_an_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_variable_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert variable("SHOP_KEY") is None
    file = tmp_path / ".env"
    file.write_text("SHOP_KEY=from-file\nSHOP_EMPTY=\n")
    assert variable("SHOP_KEY") == "from-file"
    assert variable("SHOP_EMPTY") is None
    assert {"SHOP_KEY", "PATH"} <= names()
    monkeypatch.setenv("SHOP_KEY", "from-shell")
    assert variable("SHOP_KEY") == "from-shell"
    monkeypatch.setenv("SHOP_KEY", "")
    assert variable("SHOP_KEY") is None
    monkeypatch.delenv("SHOP_KEY")
    file.write_text("SHOP_KEY=changed-file\n")
    assert variable("SHOP_KEY") == "changed-file"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"SHOP_KEY=\xff\xfe")
    for read in (lambda: variable("SHOP_KEY"), load_settings):
        with pytest.raises(ConfigurationError, match=r"\.env cannot be read"):
            read()


def test_a_folder_of_that_name_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert variable("SHOP_KEY") is None


def test_unknown_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_variables(Settings) == []
    monkeypatch.setenv("AGENTAPI_CONCURENCY", "8")
    monkeypatch.setenv("AGENTAPI_XYZZY", "1")
    monkeypatch.setenv("AGENTAPI_QUEUES", "8")
    monkeypatch.setenv("AGENTAPI_OFFLINE_DELAY", "1")
    monkeypatch.setenv("agentapi_redis_url", "redis://127.0.0.1:6379/0")
    (tmp_path / ".env").write_text("AGENTAPI_REDISURL=redis://127.0.0.1/0\n")
    assert [str(unknown) for unknown in unknown_variables(Settings)] == [
        "AGENTAPI_CONCURENCY is not a setting and has no effect; "
        "did you mean AGENTAPI_CONCURRENCY?",
        "AGENTAPI_REDISURL is not a setting and has no effect; did you mean AGENTAPI_REDIS_URL?",
        "AGENTAPI_XYZZY is not a setting and has no effect",
    ]


def test_only_a_gateway_knows_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPI_GATEWAY_PORT", "1")
    monkeypatch.setenv("AGENTAPI_GATEWAY_PROT", "1")
    assert unknown_variables(Settings) == []
    [unknown] = unknown_variables(GatewaySettings)
    assert (unknown.name, unknown.nearest) == ("AGENTAPI_GATEWAY_PROT", "AGENTAPI_GATEWAY_PORT")


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_a_delay_that_is_not_a_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPI_OFFLINE_DELAY", value)
    with pytest.raises(
        ProviderMisconfigured, match=r"AGENTAPI_OFFLINE_DELAY is .* expected seconds"
    ):
        OfflineProvider.from_environment()


def test_a_program_warns_of_them_at_its_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AGENTAPI_QUEUE", "8")
    monkeypatch.setenv("AGENTAPI_XYZZY", "secret")
    warn_of_unknown_variables(Settings, logging.getLogger("agentapi.settings"))
    assert [record.getMessage() for record in logged(caplog, "agentapi.settings")] == [
        "settings.unknown variable=AGENTAPI_QUEUE nearest=AGENTAPI_QUEUES",
        "settings.unknown variable=AGENTAPI_XYZZY nearest=none",
    ]
