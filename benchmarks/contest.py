"""The compared systems, and how each is run: worker processes and a producer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from agentapi.conversation.messages import AssistantMessage, UserMessage, dumps
from agentapi.redis.keys import conversation_keys
from benchmarks.contenders import turn
from benchmarks.environments import ROOT, Environment
from orchestrator.stack import Child, Stack
from orchestrator.stack.processes import LAUNCH, stop_all
from tools.postgres import Postgres

_CELERY = Environment(name="celery", requirements=("celery==5.7.0", "redis==8.1.0", "packaging"))
_ARQ = Environment(name="arq", requirements=("arq==0.28.0",))
_AGENTEXEC = Environment(
    name="agentexec", requirements=("agentexec==0.3.0", "asyncpg==0.32.0"), python=">=3.12"
)
_DBOS = Environment(name="dbos", requirements=("dbos==3.4.0", "redis==8.1.0"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A system to compare.

    Attributes:
        name: Its name in tables and for `--contender`.
        module: The module that its workers and its producer run.
        environment: Its virtual environment; None for this runtime, which uses the current one.
        scale: Turns in a throughput round, as a share of those of the fast systems.
        database: URL of its database, with the placeholder ``{postgres}`` or ``{folder}``, if any.
        history: Whether it keeps a history; the task that does nothing does not.
        parallel: Whether one of its processes runs many turns at the same time.
        env: Environment variables for its processes.
    """

    name: str
    module: str
    environment: Environment | None
    scale: float = 1.0
    database: str = ""
    history: bool = True
    parallel: bool = True
    env: dict[str, str] = field(default_factory=dict)

    @property
    def needs_postgres(self) -> bool:
        """Whether its database is PostgreSQL."""
        return "{postgres}" in self.database

    def key_of(self, conversation: str) -> str:
        """Key of the list that receives a turn's messages."""
        if self.environment is None:
            return conversation_keys(conversation).messages
        return turn.key_of(conversation)


BARE: Final = "celery, nothing"
BY_HAND: Final = "celery, by hand"
AGENTEXEC: Final = "agentexec"
DBOS_SQLITE: Final = "dbos, sqlite"
DBOS_POSTGRES: Final = "dbos, postgres"
RUNTIME: Final = "this runtime"

CONTENDERS: Final = (
    Contender(
        name=BARE,
        module="celery_loop",
        environment=_CELERY,
        history=False,
        env={"BENCH_BARE": "1"},
    ),
    Contender(name=BY_HAND, module="celery_loop", environment=_CELERY),
    Contender(name="arq", module="arq_loop", environment=_ARQ),
    Contender(
        name=AGENTEXEC,
        module="agentexec_loop",
        environment=_AGENTEXEC,
        scale=0.15,
        database="postgresql+asyncpg://{postgres}",
        parallel=False,
    ),
    Contender(
        name=DBOS_SQLITE,
        module="dbos_loop",
        environment=_DBOS,
        scale=0.06,
        database="sqlite:///{folder}/dbos.sqlite",
    ),
    Contender(
        name=DBOS_POSTGRES,
        module="dbos_loop",
        environment=_DBOS,
        scale=0.06,
        database="postgresql://{postgres}",
    ),
    Contender(name=RUNTIME, module="runtime", environment=None),
    Contender(
        name="this runtime, streaming",
        module="runtime",
        environment=None,
        env={"BENCH_STREAM": "1"},
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Servers:
    """The servers for all contenders: Valkey, and PostgreSQL if it is available."""

    folder: Path
    redis_url: str
    postgres: Postgres | None = None


class ProducerProcess:
    """A contender's producer in its own process."""

    def __init__(self, python: str, module: str, env: dict[str, str], log: Path) -> None:
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(LAUNCH), str(os.getpid()), python, "-m", module, "producer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **env},
            cwd=ROOT,
            start_new_session=True,
        )

    def send(self, what: str, conversations: Sequence[str]) -> None:
        """Send a command. Does not wait for it to be carried out."""
        command = json.dumps({"do": what, "conversations": list(conversations)})
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the measured values.

        Raises:
            RuntimeError: The process has ended; its log says why.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the producer ended; its log is {self._log.name}")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self) -> None:
        """End the process by closing its input."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@dataclass(kw_only=True)
class Entrant:
    """A running contender."""

    contender: Contender
    client: redis.Redis
    producer: ProducerProcess
    workers: list[Child]

    @property
    def pids(self) -> list[int]:
        """Process ids of its workers."""
        return [worker.pid for worker in self.workers]

    def prepare(self, conversations: Sequence[str], messages: int = turn.WINDOW) -> None:
        """Give each conversation a history."""
        pipeline = self.client.pipeline(transaction=False)
        stored = history(self.contender, messages)
        for conversation in conversations:
            if stored:
                pipeline.rpush(self.contender.key_of(conversation), *stored)
        pipeline.execute()

    def ask(self, conversations: Sequence[str]) -> list[float]:
        """Run turns one after the other; returns the seconds of each."""
        self.producer.send("ask", conversations)
        seconds: list[float] = self.producer.answer()["seconds"]
        return seconds

    def stop_workers(self) -> None:
        """End the worker processes."""
        stop_all(self.workers)
        self.workers = []


def history(contender: Contender, messages: int) -> list[bytes]:
    """Messages of a conversation of the given length, as the contender stores them."""
    if not contender.history:
        return []
    texts = [turn.TEXT if number % 2 == 0 else f"Answer {number}." for number in range(messages)]
    if contender.environment is None:
        return [
            dumps(UserMessage(content=text) if i % 2 == 0 else AssistantMessage(content=text))
            for i, text in enumerate(texts)
        ]
    return [
        json.dumps({"role": "user" if i % 2 == 0 else "assistant", "content": text}).encode()
        for i, text in enumerate(texts)
    ]


@contextlib.contextmanager
def entrant(
    contender: Contender,
    servers: Servers,
    *,
    processes: int,
    concurrency: int = 64,
    delay: float = 0.0,
) -> Iterator[Entrant]:
    """Start a contender's workers and producer on an empty Valkey; stop them at the end."""
    client = redis.Redis.from_url(servers.redis_url)
    client.flushall()
    logs = servers.folder / "logs" / f"{contender.module}-{time.monotonic_ns()}"
    logs.mkdir(parents=True)
    env = _variables(contender, servers, logs, processes, concurrency, delay)
    python = str(contender.environment.interpreter()) if contender.environment else sys.executable
    module = f"benchmarks.contenders.{contender.module}"
    workers: list[Child] = []
    producer: ProducerProcess | None = None
    try:
        if contender.environment is None:
            workers += _own_workers(servers, logs, processes, concurrency, delay)
        else:
            workers += _foreign_workers(contender, python, module, env, logs, processes, client)
        producer = ProducerProcess(python, module, env, logs / "producer.log")
        running = Entrant(contender=contender, client=client, producer=producer, workers=workers)
        # Warm up: the first turns pay for connections, caches and scripts.
        running.ask(
            [f"warm-{number}" for number in range(max(2, int(8 * processes * contender.scale)))]
        )
        yield running
        running.stop_workers()
    finally:
        if producer is not None:
            producer.stop()
        stop_all(workers)
        client.close()


def _variables(
    contender: Contender,
    servers: Servers,
    folder: Path,
    processes: int,
    concurrency: int,
    delay: float,
) -> dict[str, str]:
    address = ""
    if contender.needs_postgres and servers.postgres is not None:
        address = servers.postgres.fresh()
    return {
        "BENCH_REDIS_URL": servers.redis_url,
        "BENCH_DATABASE_URL": contender.database.format(postgres=address, folder=folder),
        "BENCH_DELAY": str(delay),
        "BENCH_CONCURRENCY": str(concurrency),
        "BENCH_PROCESSES": str(processes),
        "AGENTEXEC_REDIS_URL": servers.redis_url,
        "AGENTEXEC_NUM_WORKERS": str(processes),
        "PYTHONUNBUFFERED": "1",
        **contender.env,
    }


def _own_workers(
    servers: Servers, folder: Path, processes: int, concurrency: int, delay: float
) -> list[Child]:
    stack = Stack(
        folder,
        agents=("benchmarks.agents",),
        workers=processes,
        flower=False,
        redis_url=servers.redis_url,
        concurrency=concurrency,
        log_level="WARNING",
        env={"AGENTAPI_OFFLINE_DELAY": str(delay)},
    )
    stack.start()
    return stack.workers


def _foreign_workers(
    contender: Contender,
    python: str,
    module: str,
    env: dict[str, str],
    folder: Path,
    processes: int,
    client: redis.Redis,
) -> list[Child]:
    # agentexec's parent process starts the others itself.
    count = processes if contender.parallel else 1
    workers = [
        Child(
            f"{contender.name} {number}",
            [python, "-m", module, "worker"],
            log=folder / f"worker{number}.log",
            env=env,
            cwd=ROOT,
        )
        for number in range(count)
    ]
    deadline = time.monotonic() + 30
    try:
        while int(str(client.llen(turn.READY))) < processes:
            for worker in workers:
                worker.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{contender.name} did not start; logs are in {folder}")
            time.sleep(0.02)
    except BaseException:
        stop_all(workers)
        raise
    return workers
