"""The turn that every contender runs, and its conditions.

A turn loads the newest messages, asks a model and appends two messages. The model is a sleep, so
that only the runtime around it is measured. This module imports only what every environment has:
Python and redis.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any, Final

import redis
import redis.asyncio

WINDOW: Final = 20
TEXT: Final = "Where is my order number 7, and when will it come?"
READY: Final = "bench:ready"
"""Key of a list to which each ready worker process adds an element."""

REDIS_URL: Final = os.environ.get("BENCH_REDIS_URL", "")
DATABASE_URL: Final = os.environ.get("BENCH_DATABASE_URL", "")
DELAY: Final = float(os.environ.get("BENCH_DELAY", "0"))
CONCURRENCY: Final = int(os.environ.get("BENCH_CONCURRENCY", "64"))
PROCESSES: Final = int(os.environ.get("BENCH_PROCESSES", "1"))


def key_of(conversation: str) -> str:
    """Key of the history of a contender without its own store."""
    return f"bench:{conversation}:messages"


def say_ready() -> None:
    """Tell the harness that this worker process is ready."""
    with redis.Redis.from_url(REDIS_URL) as client:
        client.rpush(READY, os.getpid())


def run_turn(client: redis.Redis, conversation: str) -> str:
    """Run the turn with a blocking client."""
    history = load(client, conversation)
    reply = ask_model(history)
    append(client, conversation, reply)
    return reply


def load(client: redis.Redis, conversation: str) -> list[dict[str, Any]]:
    """The newest messages."""
    stored: Any = client.lrange(key_of(conversation), -WINDOW, -1)
    return [json.loads(message) for message in stored]


def ask_model(history: list[dict[str, Any]]) -> str:
    """Stand in for a model: return immediately, or after the delay."""
    if DELAY:
        time.sleep(DELAY)
    return _reply(history)


def append(client: redis.Redis, conversation: str, reply: str) -> None:
    """Append the user's message and the reply together."""
    client.rpush(key_of(conversation), *_messages(reply))


async def run_turn_async(client: redis.asyncio.Redis, conversation: str) -> str:
    """Run the turn on an event loop."""
    reply = await ask_model_async(await load_async(client, conversation))
    await append_async(client, conversation, reply)
    return reply


async def load_async(client: redis.asyncio.Redis, conversation: str) -> list[dict[str, Any]]:
    """See `load`."""
    listed: Any = client.lrange(key_of(conversation), -WINDOW, -1)
    return [json.loads(message) for message in await listed]


async def append_async(client: redis.asyncio.Redis, conversation: str, reply: str) -> None:
    """See `append`."""
    pushed: Any = client.rpush(key_of(conversation), *_messages(reply))
    await pushed


async def ask_model_async(history: list[dict[str, Any]]) -> str:
    """See `ask_model`."""
    if DELAY:
        await asyncio.sleep(DELAY)
    return _reply(history)


def _reply(history: list[dict[str, Any]]) -> str:
    return f"You said: {TEXT} ({len(history)} messages before)"


def _messages(reply: str) -> tuple[str, str]:
    return (
        json.dumps({"role": "user", "content": TEXT}),
        json.dumps({"role": "assistant", "content": reply}),
    )
