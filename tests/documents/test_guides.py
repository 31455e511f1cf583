"""Guides whose blocks need more than Python: a browser's code, a project's own tests, an image."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import httpx2
import pytest
import uvicorn

from orchestrator.stack import Stack
from orchestrator.stack.processes import free_port
from tests.documents.blocks import blocks_of
from tests.documents.commands import check_command, commands_of
from tests.documents.sandbox import Sandbox

BIN = Path(sys.executable).parent
BROWSER = "docs/guides/browser.md"

# Node has a browser's fetch and EventSource, but no address that relative ones belong to.
PRELUDE = """
const base = process.env.BASE;
const [realFetch, RealEventSource] = [fetch, EventSource];
globalThis.fetch = (path, options) => realFetch(base + path, options);
globalThis.EventSource = class extends RealEventSource {
  constructor(path) { super(base + path); }
};
"""
VISIT = """
const shown = [];
const end = await ask("Hello from a page", (text) => shown.push(text));
console.log(JSON.stringify({ end, last: shown.at(-1), pieces: shown.length }));
"""


@pytest.fixture
def page_server(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, str]]:
    """The guide's application, served, with a worker behind it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AGENTAPI_REDIS_URL", redis_url)
    with Sandbox(tmp_path) as sandbox:
        for block in blocks_of(BROWSER):
            if block.title:
                sandbox.write(block)
        app = import_module("web").app
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            with Stack(
                tmp_path / ".stack",
                agents=("shop",),
                workers=1,
                flower=False,
                redis_url=redis_url,
                env={"PYTHONPATH": str(tmp_path)},
            ):
                yield tmp_path, f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(30)


def test_the_browser_guide(page_server: tuple[Path, str]) -> None:
    folder, base = page_server
    script = (folder / "static/chat.js").read_text()
    (folder / "visit.mjs").write_text(PRELUDE + script + VISIT)
    done = subprocess.run(
        [BIN / "node", "--experimental-eventsource", "--no-warnings", "visit.mjs"],
        cwd=folder,
        env={**os.environ, "BASE": base},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"end":"completed","last":"You said: Hello from a page"' in done.stdout
    assert httpx2.get(f"{base}/turns/not-a-turn/events", timeout=60).status_code == 400
    unknown = "000-0123456789abcdef0123456789abcdef"
    assert httpx2.get(f"{base}/turns/{unknown}/events", timeout=60).status_code == 404
    empty = httpx2.post(f"{base}/messages", json={"text": " "}, timeout=60)
    assert empty.status_code == 400
    html = (folder / "static/index.html").read_text()
    assert "chat.js" in html
    assert set(re.findall(r"\b(ask|follow)\(", html)) <= set(re.findall(r"function (\w+)", script))


def test_the_tests_of_the_testing_page(tmp_path: Path) -> None:
    for block in blocks_of("docs/testing.md"):
        if block.title:
            (tmp_path / block.title).write_text(block.code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_deploy_guide_runs_commands_that_are_there() -> None:
    """Those that run in containers; tests/deploy checks those of the files."""
    inside = []
    for block in blocks_of("docs/guides/deploy.md"):
        if block.language != "console":
            continue
        for words in commands_of(block):
            for mark in ("cli", "--"):
                if words[0] in ("docker", "kubectl") and mark in words:
                    found = words[words.index(mark) + 1 :]
                    inside.append(found if mark == "--" else ["agentapi", *found])
    assert len(inside) == 2
    for command in inside:
        check_command(command)
    [image] = [b for b in blocks_of("docs/guides/deploy.md") if b.language == "dockerfile"]
    [variable] = [line for line in image.code.splitlines() if line.startswith("ENV ")]
    check_command([variable.removeprefix("ENV ")])
