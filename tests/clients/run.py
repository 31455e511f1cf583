"""Runs clients' cases against a gateway of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.stack import Stack
from tests.clients.environments import command, variables
from tests.clients.model import ObedientModel
from tests.clients.roster import Client
from tests.gateway.conftest import make_key

LIMIT = 600
"""Seconds for all cases of a client."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case.

    Attributes:
        client: The client's name.
        case: The case's name.
        feature: What it shows.
        error: None when it worked.
        seconds: How long it took.
    """

    client: str
    case: str
    feature: str
    error: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway whose agents ask the obedient model."""

    url: str
    key: str
    folder: Path


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """Run Valkey, a worker, the gateway and the model."""
    model = ObedientModel()
    model.start()
    try:
        with Stack(
            folder,
            agents=("tests.clients.agents",),
            workers=1,
            flower=False,
            gateway=True,
            env={
                "OPENAI_API_KEY": "sk-obedient-model",
                "OPENAI_BASE_URL": model.url,
                "OPENAI_MODEL": "obedient",
            },
            gateway_requests_per_minute=0,
            gateway_turns_in_flight=0,
        ) as stack:
            assert stack.gateway_url is not None
            key = make_key(stack.settings, "clients")
            yield Gateway(url=f"{stack.gateway_url}/v1", key=key, folder=folder)
    finally:
        model.stop()


def run(client: Client, served: Gateway, cases: Sequence[str] = ()) -> Iterator[Outcome]:
    """Run a client's cases; its environment must be prepared.

    Args:
        client: The client.
        served: The gateway.
        cases: Names of cases; all when empty.

    Yields:
        Each case as it ends. A client that dies gives one outcome that says so.
    """
    log = served.folder / f"{client.name}.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*command(client), *cases],
            cwd=served.folder,
            env=variables({"GATEWAY_URL": served.url, "GATEWAY_KEY": served.key}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield Outcome(client=client.name, **json.loads(line))
            code = process.wait(LIMIT)
        finally:
            process.kill()
    if code != 0:
        end = log.read_text(errors="replace")[-500:]
        error = f"the client ended with exit code {code}: {end}"
        yield Outcome(client=client.name, case="process", feature="all", error=error, seconds=0)
