"""DBOS: a durable workflow of three steps on a queue, which is polled every 50 ms instead of every
second."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from dbos import DBOS, DBOSClient

from benchmarks.contenders import turn
from benchmarks.contenders.producer import serve

QUEUE = "turns"
WORKFLOW = "take_turn"
POLL = 0.05


class DBOSProducer:
    """Enqueues workflows from outside the application."""

    def __init__(self) -> None:
        self._client: Any = DBOSClient(system_database_url=turn.DATABASE_URL)

    def enqueue(self, conversations: Sequence[str]) -> None:
        """See `Producer.enqueue`."""
        for conversation in conversations:
            self._send(conversation)

    def ask(self, conversation: str) -> None:
        """See `Producer.ask`."""
        self._send(conversation).get_result(polling_interval_sec=POLL)

    def close(self) -> None:
        """See `Producer.close`."""
        self._client.destroy()

    def _send(self, conversation: str) -> Any:
        return self._client.enqueue({"workflow_name": WORKFLOW, "queue_name": QUEUE}, conversation)


def register() -> None:
    """Register the workflow and its steps with DBOS."""
    clients: dict[asyncio.AbstractEventLoop, redis.asyncio.Redis] = {}

    def client() -> redis.asyncio.Redis:
        loop = asyncio.get_running_loop()
        if loop not in clients:
            clients[loop] = redis.asyncio.Redis.from_url(turn.REDIS_URL)
        return clients[loop]

    async def load(conversation: str) -> list[dict[str, Any]]:
        return await turn.load_async(client(), conversation)

    async def ask(history: list[dict[str, Any]]) -> str:
        return await turn.ask_model_async(history)

    async def append(conversation: str, reply: str) -> None:
        await turn.append_async(client(), conversation, reply)

    load_step: Any = DBOS.step()(load)
    ask_step: Any = DBOS.step()(ask)
    append_step: Any = DBOS.step()(append)

    async def take_turn(conversation: str) -> str:
        reply: str = await ask_step(await load_step(conversation))
        await append_step(conversation, reply)
        return reply

    DBOS.workflow(name=WORKFLOW)(take_turn)


def work() -> None:
    """Run a worker."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": turn.DATABASE_URL,
            "application_version": "bench",
            "executor_id": str(os.getpid()),
            "log_level": "WARNING",
            "sys_db_pool_size": 20,
        }
    )
    register()
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=turn.CONCURRENCY, polling_interval_sec=POLL)
    turn.say_ready()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    DBOS.destroy()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work()
    else:
        serve(DBOSProducer())
