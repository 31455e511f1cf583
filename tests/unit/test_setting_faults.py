"""What a person reads who has set a setting to a value that is not valid."""

from __future__ import annotations

import pytest

from agentapi import load_settings
from agentapi.errors import ConfigurationError


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("CONCURRENCY", "many", "CONCURRENCY is 'many', expected a whole number"),
        ("QUEUES", "3.5", "QUEUES is '3.5', expected a whole number"),
        ("CONCURRENCY", "0", "CONCURRENCY is '0', expected 1 or more"),
        ("LEASE_TTL", "soon", "LEASE_TTL is 'soon', expected a number"),
        ("LEASE_TTL", "-1", "LEASE_TTL is '-1', expected a number above 0"),
        ("METRICS_PORT", "70000", "METRICS_PORT is '70000', expected 65535 or less"),
        ("EAGER", "maybe", "EAGER is 'maybe', expected true or false"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT is 'xml', expected 'text' or 'json'"),
        (
            "PRICES",
            '{"a:b": {"input": "x", "output": 1}}',
            "PRICES [a:b] [input] is 'x', expected a number",
        ),
        (
            "REDIS_URL",
            "a-secret-in-the-wrong-place",
            "REDIS_URL: expected a URL such as redis://127.0.0.1:6379/0",
        ),
    ],
)
def test_what_was_given_and_what_is_expected(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AGENTAPI_{variable}", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert f"AGENTAPI_{said}" in str(caught.value)
    assert "Input should" not in str(caught.value)
    assert "Value error" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_long_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPI_CONCURRENCY", "9" * 5000)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert len(str(caught.value)) < 500
