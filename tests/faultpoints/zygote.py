"""A process with everything imported, fault points compiled in, that forks the others on demand.

It reads one JSON object a line: what to fork. It answers with the child's process id, and says when
a child has ended. When its input ends, it kills its children and ends.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from types import FrameType
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
    "workers.consumer",
    "workers.pool",
    "workers.redis_transport",
)

_children: set[int] = set()


def _say(**message: Any) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _reap(_: int, __: FrameType | None) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _children.discard(pid)
            _say(ended=pid, code=os.waitstatus_to_exitcode(status))


def _fork(request: dict[str, Any]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def main() -> None:
    """Import, and fork."""
    compiled.install()
    _import_all()
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _say(ready=True)
    for line in sys.stdin:
        _fork(json.loads(line))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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
