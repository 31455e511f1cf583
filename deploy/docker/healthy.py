#!/usr/bin/env -S python3 -I -S
"""Checks whether this container's process is healthy: exit code 0, or 1 and a line that says why.

A worker keeps a file fresh while at least one of its processes takes turns. The gateway and Flower
answer over HTTP. Any other command is healthy as long as it runs.
"""

import os
import sys
import time
import urllib.request

FRESH = 30.0
"""Seconds. The worker touches its file every second."""


def main(command: list[str]) -> str | None:
    """Return what is wrong; None if nothing is."""
    if "--ready-file" in command:
        return stale(command[command.index("--ready-file") + 1])
    port = os.environ.get("AGENTAPI_GATEWAY_PORT") or "8080"
    if command[-2:] == ["agentapi", "gateway"]:
        return silent(f"http://127.0.0.1:{port}/healthz")
    if "flower" in command:
        return silent("http://127.0.0.1:5555/healthcheck")
    return None


def stale(path: str) -> str | None:
    """Return what is wrong with a worker."""
    try:
        age = time.time() - os.stat(path).st_mtime
    except OSError:
        return "no worker process takes turns"
    return f"the supervisor has not reported for {age:.0f} s" if age > FRESH else None


def silent(url: str) -> str | None:
    """Return what is wrong with a server."""
    try:
        with urllib.request.urlopen(url, timeout=4):  # noqa: S310
            return None
    except OSError as error:
        return f"{url}: {error}"


if __name__ == "__main__":
    with open("/proc/1/cmdline", "rb") as file:
        wrong = main(file.read().decode().rstrip("\0").split("\0"))
    if wrong:
        sys.exit(wrong)
