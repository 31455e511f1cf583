"""A whole stack over TLS, with a password that no process prints."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import psutil
import pytest
import redis
from typer.testing import CliRunner

from agentapi import Settings
from agentapi.errors import LoginRefused, StoreUnavailable
from orchestrator import Orchestrator
from orchestrator.broker import producer_app
from orchestrator.cli.main import commands
from orchestrator.doctor import examine
from orchestrator.stack import Stack, start_valkey
from tests.certificates import Authority, TlsProxy

PASSWORD = "hunter2/@;#%:?&"
ENCODED = quote(PASSWORD, safe="")
WAIT = 60.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder / "ca")
    child, plain = start_valkey(folder)
    port = urlsplit(plain).port
    assert port is not None
    try:
        with closing(redis.Redis.from_url(plain)) as client:
            client.config_set("requirepass", PASSWORD)
        with (
            TlsProxy(port, authority.sign("server", hosts=("localhost",))) as proxy,
            Stack(
                folder / "stack",
                agents=("tests.acceptance.agents",),
                workers=1,
                gateway=True,
                redis_url=f"rediss://:{ENCODED}@localhost:{proxy.port}/0",
                tls_ca_file=str(authority.file),
                gateway_open=True,
            ) as running,
        ):
            yield running
    finally:
        child.stop()


def everything_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def refusal_of(settings: Settings) -> str:
    """What a producer is told, with all causes."""
    with (
        Orchestrator(settings) as orchestrator,
        pytest.raises((StoreUnavailable, LoginRefused)) as caught,
    ):
        orchestrator.enqueue("tools", "hello", conversation_id="refused")
    return everything_of(caught.value)


def findings_of(settings: Settings) -> str:
    return "\n".join(str(finding) for finding in examine(settings))


def answers_of(settings: Settings) -> dict[str, str]:
    """What Celery's remote control tells everybody."""
    app: Any = producer_app(settings)
    try:
        inspect = app.control.inspect(timeout=WAIT, limit=1)
        return {name: json.dumps(getattr(inspect, name)()) for name in ("stats", "conf", "report")}
    finally:
        app.close()


def test_a_turn_by_a_producer_and_by_the_gateway(stack: Stack) -> None:
    with Orchestrator(stack.settings) as orchestrator:
        handle = orchestrator.enqueue("tools", "hello", conversation_id="tls", stream=True)
        assert handle.result(WAIT).text
        assert len(orchestrator.history("tls")) == 2
    answer = httpx2.post(
        f"{stack.gateway_url}/v1/chat/completions",
        json={"model": "tools", "messages": [{"role": "user", "content": "hello"}]},
        timeout=WAIT,
    )
    assert answer.status_code == 200, answer.text
    assert httpx2.get(f"{stack.gateway_url}/readyz", timeout=WAIT).status_code == 200


def test_no_process_prints_the_password(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = stack.settings
    wrong_url = settings.redis_url.replace(ENCODED, f"{ENCODED}x")
    wrong = settings.model_copy(update={"redis_url": wrong_url, "broker_url": wrong_url})
    distrustful = settings.model_copy(update={"tls_ca_file": None})
    monkeypatch.setenv("AGENTAPI_REDIS_URL", settings.redis_url)
    found = {
        "settings": CliRunner().invoke(commands, ["settings", "--json"]).output,
        "doctor": findings_of(settings),
        "doctor, wrong": findings_of(wrong),
        "doctor, distrustful": findings_of(distrustful),
        "wrong": refusal_of(wrong),
        "distrustful": refusal_of(distrustful),
        **answers_of(settings),
    }
    found["log"] = caplog.text
    assert "rediss://:***@localhost" in found["settings"]
    assert "redis.reachable" in found["doctor"]
    assert "broker.reachable" in found["doctor"]
    assert "user or password" in found["wrong"]
    assert "AGENTAPI_TLS_CA_FILE" in found["distrustful"]
    assert "AGENTAPI_TLS_CA_FILE" in found["doctor, distrustful"]
    assert "localhost" in found["stats"]
    assert "broker_use_ssl" in found["conf"]
    for child in stack.children:
        found[f"arguments of {child.name}"] = " ".join(psutil.Process(child.pid).cmdline())
    found.update(pages_of(stack))
    for log in Path(stack.folder, "logs").iterdir():
        found[log.name] = log.read_text()
    for name, text in found.items():
        assert "hunter2" not in text, (name, text[max(0, text.index("hunter2") - 300) :][:600])


def pages_of(stack: Stack) -> dict[str, str]:
    """Flower's pages, which are not empty."""
    found: dict[str, str] = {}
    with httpx2.Client(base_url=stack.flower_url or "", auth=stack.flower_auth) as flower:

        def read(path: str) -> Any:
            answer = flower.get(path, timeout=WAIT)
            assert answer.status_code == 200, (path, answer.text)
            found[f"Flower {path}"] = answer.text
            return answer

        workers: dict[str, Any] = {}
        while not workers:
            # A busy worker may not answer within Flower's second.
            workers = read("/api/workers?refresh=1").json()
        [worker] = workers
        for path in ("/", "/workers", "/tasks", "/broker", f"/worker/{worker}"):
            read(path)
    assert "agentapi.0" in found["Flower /broker"]
    return found
