"""Google's Gemini through the async client of `google-genai`.

Contents and tools are passed as `extra_body`, the only public way around the SDK's conversion of
every part (google-genai 3.4: 4 ms instead of 40 ms at 100 messages). Automatic function calling,
continuation and the SDK's retries are off, because the runtime does all of that.
"""

from __future__ import annotations

import asyncio
import re
import uuid
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
from google import genai
from google.genai import errors, types

from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.decoding.plain import plain
from agentapi.environment import variable
from agentapi.errors import ProviderError
from agentapi.providers.answers import LONGEST_ANSWER
from agentapi.providers.base import (
    FinishReason,
    ModelRequest,
    ModelResponse,
    StreamPart,
    TextDelta,
)
from agentapi.providers.errors import broken, missing_key, refused, retry_after, unlisted
from agentapi.providers.gemini.format import (
    PROVIDER,
    contents,
    day_is_spent,
    in_words,
    retry_delay,
    tool_config,
    tools,
    usage_from,
    with_sampling,
)
from agentapi.providers.reaching import unreachable

DEFAULT_MODEL: Final = "gemini-3.8-flash"
DEFAULT_TIMEOUT: Final = 120.0
_ADDRESS: Final = "https://generativelanguage.googleapis.com"

_FILTERED: Final = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "MODEL_ARMOR",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
    }
)
_MODEL_SLIPPED: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE", "OTHER"}
)
_TOOLS_OR_JSON: Final = re.compile(r"\bgemini-[12]\b")
"""Models that do not support function calling together with a JSON reply."""
_MARKS: Final = frozenset({"thought", "thoughtSignature"})
_KEY_REASONS: Final = ("API_KEY_INVALID", "API_KEY_EXPIRED", "API key not valid")
_TRANSPORT: Final = (aiohttp.ClientError, TimeoutError, OSError)


class GeminiProvider:
    """A client of the Gemini API, with one connection pool."""

    name = PROVIDER
    takes_attachments = True

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None = None,
        default_model: str = DEFAULT_MODEL,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """Create a client; it connects at first use. Needs a running event loop.

        Args:
            api_key: The key; never shown.
            base_url: URL of the server; `GOOGLE_GEMINI_BASE_URL` or Google's when not given.
            default_model: The model for agents that do not name one.
            timeout: Maximum seconds without data from the server.
        """
        hide_quotes()
        self.default_model = default_model
        self._key = api_key
        self._address = base_url or _ADDRESS
        # The SDK replaces the session's timeout with its own, which is no timeout (google-genai
        # 3.4).
        self._timeout = timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        )
        self._client = genai.Client(
            api_key=api_key,
            vertexai=False,
            http_options=types.HttpOptions(
                base_url=base_url,
                aiohttp_client=self._session,
                # Otherwise the SDK retries a failed connection after up to 10 s.
                retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )

    @classmethod
    def from_environment(cls) -> GeminiProvider:
        """Create a client from `GOOGLE_API_KEY` or `GEMINI_API_KEY`, `GEMINI_MODEL` and
        `GOOGLE_GEMINI_BASE_URL`.

        They are read from the environment or from `.env`.

        Raises:
            ProviderMisconfigured: No key is set.
        """
        key = variable("GOOGLE_API_KEY") or variable("GEMINI_API_KEY")
        if not key:
            raise missing_key("gemini", "GEMINI_API_KEY", "GOOGLE_API_KEY")
        return cls(
            api_key=key,
            base_url=variable("GOOGLE_GEMINI_BASE_URL"),
            default_model=variable("GEMINI_MODEL") or DEFAULT_MODEL,
        )

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`."""
        gathered = _Gathered()
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.aio.models.generate_content(
                    model=request.model, contents="-", config=_config(request)
                )
            gathered.add(response)
            return gathered.response()
        except Exception as error:
            raise self._translated(error) from error

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`."""
        gathered = _Gathered()
        try:
            async with asyncio.timeout(self._timeout):
                chunks = await self._client.aio.models.generate_content_stream(
                    model=request.model, contents="-", config=_config(request)
                )
            # Also if the turn is stopped: an open stream would continue to cost tokens.
            async with _closing(chunks):
                # The timeout limits the time between chunks, not the length of an answer.
                while (chunk := await self._next(chunks)) is not None:
                    if text := gathered.add(chunk):
                        yield TextDelta(text=text)
            whole = gathered.response()
        except Exception as error:
            raise self._translated(error) from error
        yield whole

    async def _next(
        self, chunks: AsyncIterator[types.GenerateContentResponse]
    ) -> types.GenerateContentResponse | None:
        async with asyncio.timeout(self._timeout):
            return await anext(chunks, None)

    async def check(self, models: Collection[str]) -> None:
        """See `CheckedProvider.check`: looks up each model, which costs no tokens."""
        for model in sorted(models):
            try:
                async with asyncio.timeout(self._timeout):
                    await self._client.aio.models.get(model=model)
            except Exception as error:
                if isinstance(error, errors.APIError) and error.code == 404:
                    raise unlisted(self.name, [model]) from error
                raise self._translated(error) from error

    async def aclose(self) -> None:
        """See `Provider.aclose`."""
        await self._client.aio.aclose()
        await self._session.close()

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, ProviderError):
            return error
        if isinstance(error, errors.APIError):
            message = error.message or str(error.status)
            headers: Mapping[str, str] = getattr(error.response, "headers", None) or {}
            wait = retry_after({name.lower(): value for name, value in headers.items()})
            return refused(
                self.name,
                error.code or 500,
                message,
                secret=self._key,
                retry_after=wait if wait is not None else retry_delay(error.details),
                misconfigured=any(reason in str(error.details) for reason in _KEY_REASONS)
                or day_is_spent(error.details),
            )
        if isinstance(error, _TRANSPORT):
            return unreachable(
                self.name, self._address, error, secret=self._key, timeout=self._timeout
            )
        # The SDK raises ValueErrors, including pydantic's, for answers that it cannot read.
        return broken(self.name, f"sent an answer that cannot be read: {type(error).__name__}")


def hide_quotes() -> None:
    """Hide the SDK's warnings about unknown values: they quote the values, and end up in logs."""
    warnings.filterwarnings("ignore", r"(?s).* is not a valid \w+", UserWarning, "google.genai")


@asynccontextmanager
async def _closing(chunks: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close the connection even if the stream is not read to its end."""
    try:
        yield
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


class _Gathered:
    """Assembles a response from its chunks; without streaming there is one chunk."""

    def __init__(self) -> None:
        self._parts: list[types.Part] = []
        self._finish: str | None = None
        self._blocked: str | None = None
        self._usage = Usage()
        self._size = 0

    def add(self, chunk: types.GenerateContentResponse) -> str:
        """Add a chunk and return its text."""
        if chunk.usage_metadata is not None:
            self._usage = usage_from(chunk.usage_metadata)
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            self._blocked = str(chunk.prompt_feedback.block_reason.value)
        if not chunk.candidates:
            return ""
        candidate = chunk.candidates[0]
        if candidate.finish_reason is not None:
            self._finish = str(candidate.finish_reason.value)
        parts = (candidate.content.parts if candidate.content else None) or []
        self._parts += parts
        text = _text(parts)
        self._size += len(text)
        if self._size > LONGEST_ANSWER:
            raise broken(PROVIDER, "sent an endless answer")
        return text

    def response(self) -> ModelResponse:
        """Build the complete response.

        Raises:
            ProviderRejected: The prompt was blocked.
            ProviderUnavailable: The response is incomplete, or the model produced an invalid one.
        """
        if self._blocked is not None:
            raise refused(PROVIDER, 400, f"the prompt was blocked: {self._blocked}", secret="")
        # A closed connection looks like the end of the stream, but only a finish reason marks the
        # end.
        if self._finish is None:
            raise broken(PROVIDER, "ended its answer early")
        if self._finish in _MODEL_SLIPPED:
            raise broken(PROVIDER, f"ended its answer with {self._finish}")
        parts = _verbatim(self._parts)
        calls = tuple(_call(part["functionCall"]) for part in parts if "functionCall" in part)
        return ModelResponse(
            message=AssistantMessage(
                content=_text(self._parts),
                tool_calls=calls,
                provider_data={PROVIDER: {"parts": parts}},
            ),
            usage=self._usage,
            finish=self._reason(calls),
        )

    def _reason(self, calls: Sequence[ToolCall]) -> FinishReason:
        if self._finish == "MAX_TOKENS":
            return FinishReason.LENGTH
        if self._finish in _FILTERED:
            return FinishReason.CONTENT_FILTER
        return FinishReason.TOOL_CALLS if calls else FinishReason.STOP


def _text(parts: Sequence[types.Part]) -> str:
    return "".join(part.text for part in parts if part.text and not part.thought)


def _call(call: Mapping[str, Any]) -> ToolCall:
    if not call.get("name"):
        raise broken(PROVIDER, "sent a function call without a name")
    return ToolCall(
        # Some models give calls no id, but results must refer to one.
        id=call.get("id") or f"gemini_{uuid.uuid4().hex[:24]}",
        name=call["name"],
        arguments=call.get("args") or {},
    )


def _verbatim(parts: Sequence[types.Part]) -> list[dict[str, Any]]:
    """The model's content verbatim, with thought signatures, to be sent back later.

    Raises:
        TooDeep: It is nested too deeply to be stored.
    """
    dumped = [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in parts]
    # Gemini refuses empty parts; a part with only a signature needs an empty text.
    said = [{"text": "", **part} if part.keys() <= _MARKS else part for part in dumped if part]
    if any("functionCall" in part for part in said):
        # The SDK parses NaN, which servers refuse.
        said = orjson.loads(orjson.dumps(plain(said)))
    return said


def _config(request: ModelRequest) -> types.GenerateContentConfig:
    body: dict[str, Any] = {"contents": contents(request.messages, request.blobs)}
    if request.tools:
        body["tools"] = tools(request.tools)
        if use := tool_config(request.tool_use):
            body["toolConfig"] = use
    prompt = request.system_prompt
    generation = with_sampling(request.options, request.sampling, request.model)
    if request.output is not None and request.tools and _TOOLS_OR_JSON.search(request.model):
        prompt = f"{prompt}\n\n{in_words(request.output)}".strip()
    elif request.output is not None:
        generation["responseMimeType"] = "application/json"
        if not request.output.free:
            generation["responseJsonSchema"] = dict(request.output.schema)
    if prompt:
        body["systemInstruction"] = {"parts": [{"text": prompt}]}
    if generation:
        body["generationConfig"] = generation
    return types.GenerateContentConfig(
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        automatic_continuation=False,
        http_options=types.HttpOptions(extra_body=body),
    )
