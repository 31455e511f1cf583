"""Client for OpenAI's Chat Completions API, and every server that implements it.

Uses the SDK's documented path for raw requests (``client.post`` with ``cast_to``): a typed
``create()`` walks the whole body in Python, which at 30 messages of history costs ten times as much
as the rest of the call (openai 3.54, `_utils/_transform.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final

import httpx2
import openai
import orjson
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from agentapi.environment import variable
from agentapi.errors import ProviderError, ProviderMisconfigured
from agentapi.providers.answers import LONGEST_ANSWER
from agentapi.providers.base import (
    ModelRequest,
    ModelResponse,
    StreamPart,
    TextDelta,
)
from agentapi.providers.errors import (
    broken,
    missing_key,
    refused,
    reported,
    retry_after,
    unlisted,
)
from agentapi.providers.openai.answers import (
    Aborted,
    Gathered,
    Unreadable,
    listed_models,
    response_from,
)
from agentapi.providers.openai.format import request_body
from agentapi.providers.reaching import shown_address, unreachable

DEFAULT_MODEL: Final = "gpt-5.6-luna"
DEFAULT_TIMEOUT: Final = 120.0
_CONNECT_TIMEOUT: Final = 5.0
_PATH: Final = "/chat/completions"
_MODELS: Final = "/models"
_MISCONFIGURED: Final = frozenset({"insufficient_quota", "invalid_api_key", "model_not_found"})


class OpenAIProvider:
    """A client of one server. The SDK's retries are off, because the runtime retries durably."""

    takes_attachments = True

    def __init__(
        self,
        *,
        api_key: str,
        name: str = "openai",
        base_url: str | None = None,
        default_model: str = DEFAULT_MODEL,
        timeout: float = DEFAULT_TIMEOUT,
        key_path: str | None = None,
    ) -> None:
        """Create a client; it connects at first use.

        Args:
            api_key: The key; never shown.
            name: The provider name that agents use.
            base_url: URL of the server, including ``/v1``; `OPENAI_BASE_URL` or OpenAI's when not
                given.
            default_model: The model for agents that do not name one.
            timeout: Maximum seconds without data from the server.
            key_path: Path of a route that refuses an invalid key, for a server that lists its
                models to everyone.
        """
        self.name = name
        self.default_model = default_model
        self._key = api_key
        self._timeout = timeout
        self._key_path = key_path
        # The cost of httpx2's own pool grows with its connections; aiohttp's does not. The default
        # expiry would close idle connections after 5 seconds.
        limits = httpx2.Limits(max_connections=1000, keepalive_expiry=60)
        self._client = AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(timeout, connect=_CONNECT_TIMEOUT),
            http_client=DefaultAioHttpClient(limits=limits),
        )

    @classmethod
    def from_environment(cls) -> OpenAIProvider:
        """Create a client from `OPENAI_API_KEY`, `OPENAI_BASE_URL` and `OPENAI_MODEL`.

        They are read from the environment or from `.env`.

        Raises:
            ProviderMisconfigured: No key is set.
        """
        key = variable("OPENAI_API_KEY")
        if not key:
            raise missing_key("openai", "OPENAI_API_KEY")
        return cls(
            api_key=key,
            base_url=variable("OPENAI_BASE_URL"),
            default_model=variable("OPENAI_MODEL") or DEFAULT_MODEL,
        )

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`."""
        try:
            response = await self._client.post(
                _PATH, body=request_body(request), cast_to=httpx2.Response
            )
            if len(response.content) > LONGEST_ANSWER:
                raise Unreadable
            return response_from(orjson.loads(response.content))
        except Exception as error:
            raise self._translated(error) from error

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`."""
        body = {
            **request_body(request),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        gathered = Gathered()
        try:
            stream: AsyncStream[object] = await self._client.post(
                _PATH, body=body, cast_to=object, stream=True, stream_cls=AsyncStream[object]
            )
            try:
                async for chunk in stream:
                    text, refusal = gathered.add(chunk)
                    if text:
                        yield TextDelta(text=text)
                    if refusal:
                        yield TextDelta(text=refusal, refusal=True)
                    for piece in gathered.pieces():
                        yield piece
            finally:
                # Also if the turn is stopped: an open stream would continue to cost tokens.
                await stream.response.aclose()
            # A closed connection looks like the end of the stream, but only a finish reason marks
            # the end.
            if not gathered.complete:
                raise broken(self.name, "ended its stream early")
            response = gathered.response()
        except Exception as error:
            raise self._translated(error) from error
        yield response

    async def check(self, models: Collection[str]) -> None:
        """See `CheckedProvider.check`: lists the server's models, which costs no tokens."""
        try:
            await self._check_key()
            response = await self._client.get(_MODELS, cast_to=httpx2.Response)
            known = listed_models(response.content)
        except (openai.NotFoundError, Unreadable) as error:
            raise ProviderMisconfigured(
                f"provider {self.name!r}: {shown_address(str(self._client.base_url))}{_MODELS} did "
                "not return a list of models; is the base URL correct? Most end in /v1. A server "
                "that does not list its models cannot be checked",
                provider=self.name,
                status=404,
            ) from error
        except Exception as error:
            raise self._translated(error) from error
        # OpenRouter lists a model once for all its variants, such as ":online".
        missing = sorted(m for m in models if not {m, m.partition(":")[0]} & known)
        if known and missing:
            raise unlisted(self.name, missing, known)

    async def _check_key(self) -> None:
        """Check the key itself, for servers that list their models without a key."""
        if self._key_path is not None:
            with contextlib.suppress(openai.NotFoundError):
                await self._client.get(self._key_path, cast_to=httpx2.Response)

    async def aclose(self) -> None:
        """See `Provider.aclose`."""
        await self._client.close()

    def _translated(self, error: Exception) -> ProviderError:
        """Translate any error: for unreadable answers the SDK raises many types of errors."""
        if isinstance(error, ProviderError):
            return error
        if isinstance(error, Aborted):
            return broken(self.name, "ended its answer with an error")
        if not isinstance(error, openai.APIError):
            what = type(error).__name__
            return broken(self.name, f"sent an answer that is not a chat completion ({what})")
        if isinstance(error, openai.APIStatusError):
            return refused(
                self.name,
                error.status_code,
                _reason(error),
                secret=self._key,
                retry_after=retry_after(error.response.headers),
                misconfigured=error.code in _MISCONFIGURED,
            )
        if isinstance(error, openai.APIConnectionError):
            return unreachable(
                self.name,
                str(self._client.base_url),
                error,
                secret=self._key,
                timeout=self._timeout,
            )
        return reported(self.name, error.message, self._key)


def _reason(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, Mapping) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.message
