"""OpenAI's Chat Completions, and every server that speaks it.

On the SDK's documented path for raw requests (``client.post`` with ``cast_to``): a typed
``create()`` walks the whole body in Python, which at 30 messages of history costs ten times
the call (openai 3.54, `_utils/_transform.py`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx2
import openai
import orjson
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from agentapi.errors import ProviderError
from agentapi.messages import AssistantMessage, ToolCall, Usage
from agentapi.providers.base import (
    FinishReason,
    ModelRequest,
    ModelResponse,
    StreamPart,
    TextDelta,
)
from agentapi.providers.errors import broken, missing_key, refused, retry_after
from agentapi.providers.openai_format import (
    finish_reason,
    request_body,
    tool_call,
    usage_from,
)

DEFAULT_MODEL: Final = "gpt-5.6-luna"
DEFAULT_TIMEOUT: Final = 120.0
_CONNECT_TIMEOUT: Final = 5.0
_PATH: Final = "/chat/completions"
_MISCONFIGURED: Final = frozenset({"insufficient_quota", "invalid_api_key", "model_not_found"})


class OpenAIProvider:
    """A client of one server. Its own retries are off: the runtime retries, durably."""

    takes_attachments = True

    def __init__(
        self,
        *,
        api_key: str,
        name: str = "openai",
        base_url: str | None = None,
        default_model: str = DEFAULT_MODEL,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Make a client; connects when first used.

        Args:
            api_key: The key; never shown.
            name: Under which agents ask for it.
            base_url: Of the server, with ``/v1``; OpenAI's, or `OPENAI_BASE_URL`, when not
                given.
            default_model: For agents that name none.
            timeout: Longest silence of the server in seconds.
        """
        self.name = name
        self.default_model = default_model
        self._key = api_key
        # httpx2's pool costs time in the number of its connections, aiohttp's does not; and
        # its connections would be closed after 5 idle seconds.
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
        """A client by `OPENAI_API_KEY`, `OPENAI_BASE_URL` and `OPENAI_MODEL`.

        Raises:
            ProviderMisconfigured: There is no key.
        """
        key = os.environ.get("OPENAI_API_KEY")
        if not key:
            raise missing_key("openai", "OPENAI_API_KEY")
        return cls(api_key=key, default_model=os.environ.get("OPENAI_MODEL") or DEFAULT_MODEL)

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`."""
        try:
            response = await self._client.post(
                _PATH, body=request_body(request), cast_to=httpx2.Response
            )
        except openai.APIError as error:
            raise self._translated(error) from error
        try:
            return _response(orjson.loads(response.content))
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
            raise broken(self.name, "sent an answer that is no chat completion") from error

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`."""
        body = {
            **request_body(request),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        gathered = _Gathered()
        try:
            stream: AsyncStream[object] = await self._client.post(
                _PATH, body=body, cast_to=object, stream=True, stream_cls=AsyncStream[object]
            )
            try:
                async for chunk in stream:
                    if text := gathered.add(chunk):
                        yield TextDelta(text=text)
            finally:
                await stream.response.aclose()
        except openai.APIError as error:
            raise self._translated(error) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise broken(self.name, "sent a chunk that is no chat completion chunk") from error
        if gathered.finish is None:
            raise broken(self.name, "cut its stream before the end")
        yield gathered.response()

    async def aclose(self) -> None:
        """See `Provider.aclose`."""
        await self._client.close()

    def _translated(self, error: openai.APIError) -> ProviderError:
        if isinstance(error, openai.APIStatusError):
            return refused(
                self.name,
                error.status_code,
                _reason(error),
                secret=self._key,
                retry_after=retry_after(error.response.headers),
                misconfigured=error.code in _MISCONFIGURED,
            )
        if isinstance(error, openai.APITimeoutError):
            return broken(self.name, "did not answer in time, or refuses connections", self._key)
        if isinstance(error, openai.APIConnectionError):
            return broken(self.name, f"cannot be reached: {error.__cause__ or error}", self._key)
        return broken(self.name, f"failed: {error.message}", self._key)


def _reason(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, Mapping) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.message


class _Gathered:
    """A streamed answer put together from its chunks."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self._text: list[str] = []
        self._refused = False
        self._calls: dict[int, dict[str, str]] = {}
        self._usage = Usage()

    def add(self, chunk: Any) -> str:
        """Add a chunk; returns its text."""
        if usage := chunk.get("usage"):
            self._usage = usage_from(usage)
        text = ""
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            self._refused = self._refused or bool(delta.get("refusal"))
            text += delta.get("content") or delta.get("refusal") or ""
            for fragment in delta.get("tool_calls") or ():
                self._add_call(fragment)
            self.finish = choice.get("finish_reason") or self.finish
        self._text.append(text)
        return text

    def _add_call(self, fragment: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(
            fragment.get("index", 0), {"id": "", "name": "", "arguments": ""}
        )
        function = fragment.get("function") or {}
        call["id"] = fragment.get("id") or call["id"]
        call["name"] = function.get("name") or call["name"]
        call["arguments"] += function.get("arguments") or ""

    def response(self) -> ModelResponse:
        """The whole answer."""
        calls = tuple(
            tool_call(call["id"], call["name"], call["arguments"])
            for _, call in sorted(self._calls.items())
        )
        return _assembled("".join(self._text), calls, self.finish, self._usage, self._refused)


def _response(data: Mapping[str, Any]) -> ModelResponse:
    choice = data["choices"][0]
    message = choice["message"]
    calls = tuple(
        tool_call(call["id"], call["function"]["name"], call["function"].get("arguments") or "")
        for call in message.get("tool_calls") or ()
    )
    refusal = message.get("refusal")
    text = message.get("content") or refusal or ""
    usage = usage_from(data.get("usage") or {})
    return _assembled(text, calls, choice.get("finish_reason"), usage, bool(refusal))


def _assembled(
    text: str, calls: tuple[ToolCall, ...], finish: str | None, usage: Usage, was_refused: bool
) -> ModelResponse:
    reason = FinishReason.FILTERED if was_refused else finish_reason(finish)
    return ModelResponse(
        message=AssistantMessage(content=text, tool_calls=calls),
        usage=usage,
        finish=FinishReason.TOOL_CALLS if calls else reason,
    )
