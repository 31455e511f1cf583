"""A model that obeys: a local Chat Completions server whose replies follow from the request.

A reply says what reached the model, so that a case can tell whether a system message or a
temperature was respected. Tools are called when the user's words name them or `tool_choice`
demands it, and arguments and structured output are instances of their schemas.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from aiohttp import web

SAMPLING: Final = (
    "temperature",
    "top_p",
    "max_completion_tokens",
    "max_tokens",
    "reasoning_effort",
)

PAUSE: Final = 0.002
"""Seconds between two pieces of a stream."""

SLOW: Final = 0.2
"""The same, when the user asks for a slow reply."""


class ObedientModel:
    """The server, in a thread of its own."""

    def __init__(self) -> None:
        """Describe it; `start` starts it."""
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Stop listening, and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        assert self._runner is not None
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _listen(self) -> None:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", _answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"


async def _answer(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    message = reply_to(body)
    finish = "tool_calls" if "tool_calls" in message else "stop"
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    words = (message["content"] or "").split(" ")
    if limit is not None and len(words) > limit:
        message["content"], finish = " ".join(words[:limit]), "length"
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish}
        if "slowly" in _last_user(body["messages"]):
            await asyncio.sleep(100 * SLOW)
        return web.json_response(_envelope("chat.completion", [choice], _usage(body)))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    pause = SLOW if "slowly" in _last_user(body["messages"]) else PAUSE
    for delta in _deltas(message):
        await _send(response, [{"index": 0, "delta": delta, "finish_reason": None}])
        await asyncio.sleep(pause)
    await _send(response, [{"index": 0, "delta": {}, "finish_reason": finish}])
    await _send(response, [], _usage(body))
    await response.write(b"data: [DONE]\n\n")
    return response


async def _send(response: web.StreamResponse, choices: list[Any], usage: Any = None) -> None:
    chunk = _envelope("chat.completion.chunk", choices, usage)
    await response.write(f"data: {json.dumps(chunk)}\n\n".encode())


def _envelope(kind: str, choices: list[Any], usage: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1,
        "model": "obedient",
        "choices": choices,
        "usage": usage,
    }


def _usage(body: Mapping[str, Any]) -> dict[str, Any]:
    prompt = len(json.dumps(body["messages"])) // 4
    return {"prompt_tokens": prompt, "completion_tokens": 9, "total_tokens": prompt + 9}


def _deltas(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for piece in re.findall(r"\S+\s*", message["content"] or ""):
        deltas.append({"content": piece})
    for index, call in enumerate(message.get("tool_calls", ())):
        named = {"name": call["function"]["name"], "arguments": ""}
        first = {"index": index, "id": call["id"], "type": "function", "function": named}
        deltas.append({"tool_calls": [first]})
        arguments = call["function"]["arguments"]
        for start in range(0, len(arguments), 8):
            part = {"index": index, "function": {"arguments": arguments[start : start + 8]}}
            deltas.append({"tool_calls": [part]})
    return deltas


def reply_to(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the model answers to a request."""
    messages = body["messages"]
    said = _last_user(messages)
    facts = said if re.search(r"\d", said) else " ".join(_said_by_users(messages))
    wanted = _wanted_tools(body, said)
    if wanted:
        calls = [_call(tool, facts) for tool in wanted]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    return {"role": "assistant", "content": _text(body, messages, said, facts)}


def _text(body: Mapping[str, Any], messages: list[Any], said: str, facts: str) -> str:
    kind = (body.get("response_format") or {}).get("type")
    if kind == "json_schema":
        return json.dumps(instance(body["response_format"]["json_schema"]["schema"], facts))
    if kind == "json_object":
        return json.dumps(_object_for(messages, facts))
    system = " ".join(
        _plain(one["content"]) for one in messages if one["role"] in ("system", "developer")
    )
    prompted = _prompted(f"{system}\n{said}", facts)
    if prompted is not None:
        return prompted
    if messages[-1]["role"] == "tool":
        results = [_plain(one["content"]) for one in messages if one["role"] == "tool"]
        return f"The tool said: {results[-1]} | system={system}"
    users = sum(one["role"] == "user" for one in messages)
    seen = [f"ack: {said}", f"users={users}", f"system={system}"]
    seen += [f"{name}={body[name]}" for name in SAMPLING if body.get(name) is not None]
    return " | ".join(seen)


def _prompted(prompt: str, said: str) -> str | None:
    """A reply in the format that a framework describes in its prompt; None without one."""
    if "[[ ## completed ## ]]" in prompt:
        outputs = re.findall(r"\[\[ ## (\w+) ## \]\]", prompt.split("All interactions")[0])
        fields = _output_fields(prompt) or outputs
        filled = "".join(f"[[ ## {name} ## ]]\nack: {said[:40]!r}\n\n" for name in fields)
        return f"{filled}[[ ## completed ## ]]"
    if "Outputs will be a JSON object" in prompt:
        return json.dumps(dict.fromkeys(_output_fields(prompt), "ack"))
    if "JSON" in prompt and (schema := _quoted_schema(prompt)) is not None:
        return f"```json\n{json.dumps(instance(schema, said))}\n```"
    if "final_answer" in prompt and "<code>" in prompt:
        return "Thought: I know it.\n<code>\nfinal_answer('ack from the code agent')\n</code>"
    if "Final Answer:" in prompt:
        return "Thought: I now can give a great answer\nFinal Answer: ack from the crew"
    return None


def _output_fields(prompt: str) -> list[str]:
    """The output fields that DSPy's prompt lists."""
    if "Your output fields are:" not in prompt:
        return []
    listed = prompt.split("Your output fields are:")[1].split("All interactions")[0]
    return re.findall(r"`(\w+)`", listed)


def _object_for(messages: list[Any], said: str) -> Any:
    """An instance of the schema that the prompt quotes, or an object of the fields it names."""
    prompt = " ".join(_plain(one["content"]) for one in messages)
    schema = _quoted_schema(prompt)
    if schema is not None:
        return instance(schema, said)
    return dict.fromkeys(_output_fields(prompt) or ["answer"], said)


def _quoted_schema(text: str) -> Any:
    """The first JSON object in a text that has `properties`; None without one."""
    decoder = json.JSONDecoder()
    for found in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, found.start())
        except ValueError:
            continue
        if "properties" in value:
            return value
    return None


def _wanted_tools(body: Mapping[str, Any], said: str) -> list[dict[str, Any]]:
    tools = [one["function"] for one in body.get("tools") or ()]
    choice = body.get("tool_choice") or "auto"
    # Results come back after the call: asked once more, the model answers.
    if not tools or choice == "none" or body["messages"][-1]["role"] == "tool":
        return []
    if isinstance(choice, dict):
        named = choice.get("function", choice).get("name")
        return [tool for tool in tools if tool["name"] == named]
    words = set(re.findall(r"[a-z]{4,}", said.lower()))
    named = [tool for tool in tools if words & set(re.findall(r"[a-z]{4,}", tool["name"].lower()))]
    if choice == "required" and not named:
        named = tools[:1]
    return named if body.get("parallel_tool_calls", True) else named[:1]


def _call(tool: Mapping[str, Any], said: str) -> dict[str, Any]:
    arguments = json.dumps(instance(tool.get("parameters") or {"type": "object"}, said))
    function = {"name": tool["name"], "arguments": arguments}
    return {"id": f"call_{uuid4().hex[:16]}", "type": "function", "function": function}


def instance(schema: Mapping[str, Any], said: str, name: str = "", root: Any = None) -> Any:
    """A value that fits a JSON schema, taken from the user's words where they have one."""
    root = schema if root is None else root
    if "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return instance(found, said, name, root)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return instance(schema[key][0], said, name, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _value(kind[0] if isinstance(kind, list) else kind, schema, said, name, root)


def _value(kind: str, schema: Mapping[str, Any], said: str, name: str, root: Any) -> Any:
    numbers = re.findall(r"\d+", said)
    if kind == "object":
        properties = schema.get("properties") or {}
        return {key: instance(one, said, key, root) for key, one in properties.items()}
    if kind == "array":
        return [instance(schema.get("items") or {"type": "string"}, said, name, root)]
    if kind in ("integer", "number"):
        return int(numbers[0]) if numbers else 7
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    if name.endswith("id") and numbers:
        return numbers[0]
    if called := re.search(r"\bcalled (\w+)", said):
        return called[1]
    proper = re.findall(r"\b[A-Z][a-z]{2,}\b", said)
    # The first word of a sentence is capitalized too.
    return proper[-1] if proper else said[:60] or name


def _last_user(messages: list[Any]) -> str:
    said = _said_by_users(messages)
    return said[-1] if said else ""


def _said_by_users(messages: list[Any]) -> list[str]:
    return [_plain(one["content"]) for one in messages if one["role"] == "user"]


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content or ())
