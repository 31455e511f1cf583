"""Concurrent streams from one gateway process: ``python -m benchmarks.gateway_streams``.

The provider, Valkey, the workers, the gateway and the clients share this machine's cores.
The same clients first ask the provider directly; the difference is the runtime's overhead.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from benchmarks.clients import Figures, figures, stream_all
from orchestrator.stack import Child, Stack
from orchestrator.stack.processes import free_port


def main(
    clients: Annotated[int, typer.Option(help="Streams at once.")] = 1000,
    ramp: Annotated[float, typer.Option(help="Seconds over which they begin.")] = 20.0,
    think: Annotated[float, typer.Option(help="Seconds before the provider's first token.")] = 1.0,
    gap: Annotated[float, typer.Option(help="Seconds between two tokens.")] = 1.0,
    tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 40,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
) -> None:
    """Measure, and print the results."""
    port = free_port()
    provider_url = f"http://127.0.0.1:{port}/v1"
    with tempfile.TemporaryDirectory() as folder:
        provider = Child(
            "provider",
            [sys.executable, "-m", "benchmarks.provider", *map(str, (port, think, gap, tokens))],
            log=Path(folder) / "logs" / "provider.log",
        )
        stack = Stack(
            Path(folder),
            agents=("benchmarks.agents",),
            workers=workers,
            flower=False,
            gateway=True,
            concurrency=clients,
            gateway_requests_per_minute=0,
            gateway_turns_in_flight=0,
            env={"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": provider_url},
        )
        try:
            with stack:
                asyncio.run(_run(stack, provider_url, clients, ramp, tokens))
        finally:
            provider.stop()


async def _run(stack: Stack, provider_url: str, clients: int, ramp: float, tokens: int) -> None:
    gateway = stack.gateway
    assert gateway is not None
    messages = [{"role": "user", "content": "Talk."}]
    chat = {"model": "fake", "messages": messages, "stream": True}
    direct = figures(
        await stream_all(f"{provider_url}/chat/completions", chat, clients, ramp, {}), tokens
    )
    _print("provider directly", direct)
    # Warm up: the workers and the gateway make their first connections before the measurement.
    talk = {"model": "talker", "input": "Talk.", "stream": True}
    await stream_all(f"{stack.gateway_url}/v1/responses", talk, 4, 0, {})
    before, cpu = _memory(gateway.pid)["VmRSS"], _cpu(gateway.pid)
    most = asyncio.create_task(_most_connections(stack, gateway.pid))
    through = figures(
        await stream_all(f"{stack.gateway_url}/v1/responses", talk, clients, ramp, {}),
        tokens,
    )
    cpu = _cpu(gateway.pid) - cpu
    most.cancel()
    redis_connections, at_once = await most
    _print("through the gateway", through)
    after = _memory(gateway.pid)["VmHWM"]
    print(f"time to first token added  median {through.median - direct.median:8.1f} ms")
    print(f"                           99th   {through.p99 - direct.p99:8.1f} ms")
    print(f"streams at once            {at_once}")
    print(f"dropped                    {through.clients - through.whole}")
    print(f"Redis connections          {redis_connections} of the gateway process")
    print(f"processor time             {cpu:.1f} s of the gateway process")
    print(f"memory                     {before:.0f} MiB before, {after:.0f} MiB at most")


def _print(name: str, found: Figures) -> None:
    print(
        f"{name:26} median {found.median:8.1f} ms, 99th {found.p99:8.1f} ms to the first token; "
        f"{found.whole} of {found.clients} streams whole {found.faults or ''}"
    )


def _cpu(pid: int) -> float:
    """Seconds of processor time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> dict[str, float]:
    """Memory in MiB, by the kernel's name for it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split() for line in lines}
    return {name: int(found[name][1]) / 1024 for name in ("VmRSS", "VmHWM")}


async def _most_connections(stack: Stack, pid: int) -> tuple[int, int]:
    """Track the peak numbers of a process's connections to Redis and to clients, until
    cancelled."""
    to_redis, clients = 0, 0
    try:
        while True:
            ours = _connections(pid)
            to_redis = max(to_redis, sum(remote == _port(stack.redis_url) for _, remote in ours))
            listening = _port(stack.gateway_url or "")
            clients = max(clients, sum(local == listening for local, _ in ours))
            await asyncio.sleep(1)
    except asyncio.CancelledError:
        return to_redis, clients


def _port(url: str) -> int:
    return urlsplit(url).port or 0


def _connections(pid: int) -> list[tuple[int, int]]:
    """Local and remote port of each TCP connection of a process."""
    sockets = _sockets(pid)
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = [
        (int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16))
        for row in rows
        if row[9] in sockets
    ]
    return [(local, remote) for local, remote in ports if remote]


def _sockets(pid: int) -> set[str]:
    found: set[str] = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(file)
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


if __name__ == "__main__":
    typer.run(main)
