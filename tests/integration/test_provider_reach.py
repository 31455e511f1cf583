"""What providers say when they cannot be reached, and how `check` tells what is wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from agentapi import Agent, UserMessage
from agentapi.errors import ProviderMisconfigured, ProviderUnavailable
from agentapi.providers import CheckedProvider, ModelRequest, Provider, providers
from agentapi.providers.errors import refused, without_secret
from agentapi.providers.gemini.client import GeminiProvider
from agentapi.providers.openai.client import OpenAIProvider
from agentapi.providers.openai.openrouter import openrouter_from_environment
from agentapi.providers.reaching import unreachable
from orchestrator.stack.processes import free_port
from tests.fakes.chat import reply
from tests.fakes.server import WireServer, serving, silent, status, text

KEY = "sk-very-secret"
REQUEST = ModelRequest(model="m", system_prompt="", messages=[UserMessage(content="hi")])
MODELS = {"object": "list", "data": [{"id": "gpt-5"}, {"id": "small"}]}


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with serving() as server:
        yield server


@pytest.mark.parametrize("kind", [OpenAIProvider, GeminiProvider])
async def test_a_refused_connection_names_address_and_cause(
    kind: type[OpenAIProvider] | type[GeminiProvider],
) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    provider = kind(api_key=KEY, base_url=url)
    with pytest.raises(ProviderUnavailable, match=rf"at {url} cannot be reached: connection refu"):
        await provider.complete(REQUEST)
    await provider.aclose()


async def test_silence_names_address_and_time(server: WireServer) -> None:
    provider = OpenAIProvider(api_key=KEY, base_url=f"{server.url}/v1", timeout=0.2)
    server.will(silent())
    with pytest.raises(ProviderUnavailable, match=rf"at {server.url}/v1 did not answer within 0.2"):
        await provider.complete(REQUEST)
    await provider.aclose()


def test_other_causes() -> None:
    def said(error: BaseException, url: str = "https://ann:pw@models.example/v1?key=x") -> str:
        return str(unreachable("p", url, error, secret="", timeout=1))

    dns = socket.gaierror(-2, "Name or service not known")
    tls = ssl.SSLCertVerificationError(1, "CERTIFICATE_VERIFY_FAILED")
    tls.verify_message = "self-signed certificate"
    where = "provider 'p' at https://models.example/v1"
    assert said(dns) == (
        f"{where} cannot be reached: its host name cannot be resolved (Name or service not known)"
    )
    assert said(tls) == (
        f"{where} cannot be reached: its TLS certificate is not valid (self-signed certificate)"
    )
    assert said(httpx2.ConnectTimeout("")) == f"{where} cannot be reached: no connection in time"
    assert said(TimeoutError()) == f"{where} did not answer within 1 s"
    assert said(RuntimeError("odd")) == f"{where} cannot be reached: RuntimeError odd"


def test_a_secret_is_masked_whole_and_only_if_it_is_one() -> None:
    assert without_secret("key sk-a+b/c==1 or sk-a%2Bb%2Fc%3D%3D1", "sk-a+b/c==1") == (
        "key *** or ***"
    )
    # A placeholder for a server without keys: `x` is in many words.
    assert "exceeds the context size" in str(
        refused("p", 400, "it exceeds the context size", secret="x")
    )
    assert without_secret("1234567 12345678", "1234567") == "1234567 12345678"


async def test_check_of_a_chat_server(server: WireServer) -> None:
    provider = OpenAIProvider(api_key=KEY, base_url=f"{server.url}/v1")
    server.will_list(status(200, MODELS))
    await provider.check({"gpt-5", "small"})
    [(path, headers)] = server.looked
    assert (path, headers["Authorization"]) == ("/v1/models", f"Bearer {KEY}")
    server.will_list(status(200, MODELS))
    with pytest.raises(ProviderMisconfigured, match=r"not list the model 'big'; it lists gpt-5, s"):
        await provider.check({"big"})
    server.will_list(status(401, {"error": {"message": f"bad key {KEY}"}}))
    with pytest.raises(ProviderMisconfigured, match=r"answered 401: bad key \*\*\*") as caught:
        await provider.check({"small"})
    assert caught.value.status == 401
    for wrong in (status(404, {}), text("<html>"), status(200, [1])):
        server.will_list(wrong)
        with pytest.raises(
            ProviderMisconfigured, match=r"/v1/models did not return a list of models"
        ):
            await provider.check({"small"})
    # A server that lists nothing says nothing about models.
    server.will_list(status(200, {"data": []}))
    await provider.check({"any"})
    await provider.aclose()


async def test_check_of_openrouter(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("OPENROUTER_BASE_URL", f"{server.url}/api/v1")
    provider = openrouter_from_environment()
    server.will_list(status(200, {"data": {}}), status(200, MODELS))
    await provider.check({"small:online"})
    assert [path for path, _ in server.looked] == ["/api/v1/key", "/api/v1/models"]
    server.will_list(status(401, {"error": {"message": "no"}}))
    with pytest.raises(ProviderMisconfigured, match="answered 401"):
        await provider.check({"small"})
    await provider.aclose()


async def test_check_of_gemini(server: WireServer) -> None:
    provider = GeminiProvider(api_key=KEY, base_url=server.url)
    server.will_list(status(200, {"name": "models/gemini-3"}))
    await provider.check({"gemini-3"})
    assert server.looked[-1][0] == "/v1/models/gemini-3"
    missing = {"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}
    server.will_list(status(404, missing))
    with pytest.raises(ProviderMisconfigured, match="does not list the model 'gemini-0'"):
        await provider.check({"gemini-0"})
    wrong = {"error": {"code": 400, "message": "no", "details": [{"reason": "API_KEY_INVALID"}]}}
    server.will_list(status(400, wrong))
    with pytest.raises(ProviderMisconfigured, match="answered 400"):
        await provider.check({"gemini-3"})
    await provider.aclose()
    assert isinstance(provider, CheckedProvider)


async def test_the_file_gives_providers_their_variables(
    server: WireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={KEY}\nOPENAI_BASE_URL={server.url}/v1\n")
    server.will(reply("from the file"))
    async with Agent(name="a", provider="openai:m") as agent:
        assert await agent.run("hi") == "from the file"
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"


class _Client:
    """A provider that only counts how often it was closed."""

    name = "counted"
    default_model = "m"

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self._error = error

    async def aclose(self) -> None:
        self.closed += 1
        if self._error is not None:
            raise self._error


async def test_a_client_that_cannot_be_closed_keeps_no_other_open() -> None:
    made: list[_Client] = []

    def make(error: Exception | None) -> Provider:
        made.append(_Client(error))
        return made[-1]  # type: ignore[return-value]

    faults = (OSError("first"), None, ValueError("second"))
    with (
        providers.replaced("one", lambda: make(faults[0])),
        providers.replaced("two", lambda: make(faults[1])),
        providers.replaced("three", lambda: make(faults[2])),
    ):
        for name in ("one", "two", "three"):
            providers.get(name)
        with pytest.raises(OSError, match="first"):
            await providers.aclose()
    assert [client.closed for client in made] == [1, 1, 1]


async def test_an_agent_closes_what_no_other_agent_uses(server: WireServer) -> None:
    made: list[OpenAIProvider] = []
    closed: list[int] = []

    class Watched(OpenAIProvider):
        async def aclose(self) -> None:
            closed.append(made.index(self))
            await super().aclose()

    def make() -> OpenAIProvider:
        made.append(Watched(api_key=KEY, base_url=f"{server.url}/v1"))
        return made[-1]

    with providers.replaced("openai", make):
        one, two = Agent(name="one", provider="openai"), Agent(name="two", provider="openai")
        server.will(reply("1"), reply("2"), reply("3"))
        assert [await one.run("hi"), await two.run("hi")] == ["1", "2"]
        await one.aclose()
        await one.aclose()
        assert closed == []
        await two.aclose()
        assert closed == [0]
        # A closed agent connects again.
        async with one:
            assert await one.run("hi") == "3"
        assert closed == [0, 1]
    # Nothing is left for asyncio to complain about.
    await asyncio.sleep(0)
