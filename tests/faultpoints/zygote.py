"""A process with everything imported, fault points compiled in, that forks the others on demand.

It reads one JSON object a line: what to fork. It answers with the child's process id, and says when
a child has ended. When its input ends, it kills its children and ends.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from tests.faultpoints import compiled

NEEDED = (
    "celery.apps.worker",
    "celery.bin.worker",
    "orchestrator.gateway.server",
    "tests.faultpoints.roles",
    "tests.faultpoints.scenarios",
    "uvicorn.protocols.http.auto",
    "workers.app",
    "workers.celery_ext.consumer",
    "workers.celery_ext.pool",
    "agentapi.broker.consumer_transport",
)

_children: set[int] = set()


def _say(**message: Any) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _children.discard(pid)
            _say(ended=pid, code=os.waitstatus_to_exitcode(status))


def _fork(request: dict[str, Any]) -> None:
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        code = 1
        try:
            from tests.faultpoints.roles import become

            become(**request)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _children.add(pid)
    _say(pid=pid)


def _requests() -> Iterator[bytes]:
    """The lines of the input; children that end meanwhile are reaped at once."""
    woken, wake = os.pipe()
    for descriptor in (woken, wake):
        os.set_blocking(descriptor, False)
    # A signal that comes just before the wait would not end it.
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    rest = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap()
        if 0 in ready:
            data = os.read(0, 65_536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from lines


def main() -> None:
    """Import, and fork."""
    compiled.install()
    _import_all()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _say(ready=True)
    for line in _requests():
        _fork(json.loads(line))
    for pid in _children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _import_all() -> None:
    """Import what children need, and wrap what crosses their edges."""
    for module in NEEDED:
        importlib.import_module(module)
    patches: Any = importlib.import_module("tests.faultpoints.patches")
    patches.install()


if __name__ == "__main__":
    main()
