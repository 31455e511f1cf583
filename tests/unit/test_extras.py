"""What an error says about an extra that is not installed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from agentapi import extras


@pytest.mark.parametrize(
    ("noted", "command"),
    [
        ('{"url": "file:///srv/my%20agents"}', "pip install '/srv/my agents[gateway]'"),
        ('{"url": "https://example.org/a.whl"}', "pip install 'agentapi[gateway]'"),
        ("broken", "pip install 'agentapi[gateway]'"),
        (None, "pip install 'agentapi[gateway]'"),
    ],
)
def test_the_command_names_what_was_installed(
    noted: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(read_text=lambda name: noted)
    monkeypatch.setattr(extras, "distribution", lambda name: found)
    assert str(extras.missing_extra("gateway", "the gateway")).endswith(command)
