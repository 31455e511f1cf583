"""Answers for paths and methods that the gateway does not serve."""

from __future__ import annotations

from typing import Final

_TOOLS: Final = "the agent's definition has its files and tools"

_NOT_SERVED: Final = {
    "completions": "legacy completions are not supported: use POST /v1/chat/completions or "
    "/v1/responses (in LlamaIndex's OpenAILike: is_chat_model=True)",
    "embeddings": "the gateway does not serve embeddings: use a model provider",
    "moderations": "the gateway does not moderate: use a model provider",
    "audio": "agents accept text, images and files, and reply in text",
    "images": "agents accept text, images and files, and reply in text",
    "videos": "agents accept text, images and files, and reply in text",
    "realtime": "use POST /v1/responses with stream=true",
    "assistants": "use /v1/responses and /v1/conversations",
    "threads": "use /v1/responses and /v1/conversations",
    "batches": "use POST /v1/responses with background=true for each request",
    "files": f"{_TOOLS}; send images and files with a message",
    "uploads": f"{_TOOLS}; send images and files with a message",
    "vector_stores": _TOOLS,
    "containers": _TOOLS,
    "fine_tuning": "the gateway does not train models: use a model provider",
    "evals": "the gateway does not evaluate models",
}
"""Routes of OpenAI's API by their first segment after /v1, and what to use instead."""

_BELOW_V1: Final = ("chat", "responses", "models")


def explain_path(method: str, path: str) -> tuple[str, str]:
    """The error's code and text for a path that is not served.

    Args:
        method: The request's method.
        path: The request's path.
    """
    parts = path.strip("/").split("/")
    served = "GET /openapi.json lists what is served"
    if parts[0] == "v1" and len(parts) > 1 and parts[1] in _NOT_SERVED:
        return "unsupported_route", f"/v1/{parts[1]} is not served: {_NOT_SERVED[parts[1]]}"
    if parts[:2] == ["openai", "deployments"]:
        return "unsupported_route", (
            "Azure's paths are not served: use the OpenAI client with base_url http://HOST:PORT/v1"
        )
    if parts[0] in _BELOW_V1:
        return "not_found", (
            f"there is no route {method} {path}: OpenAI's API is below /v1, so use base_url "
            "http://HOST:PORT/v1"
        )
    if path.endswith("/") and len(path) > 1:
        return "not_found", f"there is no route {method} {path}: remove the trailing slash"
    return "not_found", f"there is no route {method} {path}: {served}"


def explain_method(method: str, path: str, allowed: str) -> str:
    """The text for a method that a path does not take.

    Args:
        method: The request's method.
        path: The request's path.
        allowed: The methods that the path takes.
    """
    known = f" takes {allowed}" if allowed else " takes other methods"
    return f"there is no route {method} {path}: this path{known}"
