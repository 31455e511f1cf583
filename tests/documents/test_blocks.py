"""Every block of code in the documents runs, or is read by what would read it."""

from __future__ import annotations

import configparser
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import yaml

from agentapi.providers import providers
from agentapi.providers.offline import OfflineProvider
from orchestrator.stack import Stack
from tests.documents.blocks import PAGES, Block, blocks_of, matches, needs_of, text_of
from tests.documents.commands import check_command, check_variable, commands_of
from tests.documents.sandbox import Sandbox

LIVE: Final = ("openai", "openrouter", "gemini")
MOST_NOT_RUN: Final = 12
FOLLOWED: Final = ("docs/tutorial.md", "docs/extending.md")
"""Pages that tests of their own follow as a whole: test_tutorial.py, test_extending.py."""


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with ExitStack() as replaced, Sandbox(tmp_path) as made:
        for name in LIVE:
            replaced.enter_context(providers.replaced(name, OfflineProvider.from_environment))
        yield made


def modules_of(blocks: list[Block]) -> tuple[str, ...]:
    """Modules with agents that a page writes."""
    agents = [b for b in blocks if b.title.endswith(".py") and re.search(r"= Agent\(", b.code)]
    titles = [b.title.removesuffix(".py") for b in agents if "test" not in b.title]
    return tuple(titles) or ("examples.agents",)


@pytest.fixture
def stack(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], None]]:
    """What a page's blocks need beside them."""
    with ExitStack() as started:

        def start(page: str) -> None:
            needs = needs_of(page)
            modules = modules_of(blocks_of(page))
            monkeypatch.setenv("AGENTAPI_AGENTS", ",".join(modules))
            if "eager" in needs:
                monkeypatch.setenv("AGENTAPI_EAGER", "true")
                monkeypatch.setenv("AGENTAPI_MEMORY", "memory")
            if "redis" in needs or "stack" in needs or "gateway" in needs:
                url: str = request.getfixturevalue("redis_url")
                monkeypatch.setenv("AGENTAPI_REDIS_URL", url)
            if "stack" in needs or "gateway" in needs:
                made = Stack(
                    sandbox.folder / ".stack",
                    agents=modules,
                    workers=1,
                    flower=False,
                    gateway="gateway" in needs,
                    redis_url=url,
                    env={"PYTHONPATH": str(sandbox.folder)},
                )
                started.enter_context(made)
                if made.gateway_url:
                    monkeypatch.setenv("GATEWAY_URL", made.gateway_url)

        yield start


def with_blocks(language: str) -> list[str]:
    """Pages with blocks of a language."""
    return [page for page in PAGES if f"```{language}" in text_of(page)]


def prints(block: Block | None) -> bool:
    """Whether a text block behind this one is its output."""
    return block is not None and block.language == "python" and not block.title and not block.reason


@pytest.mark.parametrize("page", sorted({*with_blocks("python")} - {*FOLLOWED}))
def test_python(page: str, sandbox: Sandbox, stack: Callable[[str], None]) -> None:
    blocks = blocks_of(page)
    for block in blocks:
        if block.title and not block.reason:
            sandbox.write(block)
    stack(page)
    before: Block | None = None
    for block in blocks:
        if block.language == "python":
            if block.reason:
                compile(block.code, str(block), "exec")
            elif not block.title:
                sandbox.run(block)
            elif block.title.endswith(".py"):
                compile(block.code, str(block), "exec")
        elif block.language == "text" and prints(before):
            sandbox.check_output(block)
        before = block


@pytest.mark.parametrize("page", with_blocks("console"))
def test_commands(page: str) -> None:
    for block in blocks_of(page):
        if block.language != "console":
            continue
        found = list(commands_of(block))
        # A terminal in which a program runs may be shown again later.
        assert found or "terminal" in block.title, f"{block}: no line begins with '$ '"
        for words in found:
            try:
                check_command(words)
            except BaseException as error:
                raise AssertionError(f"{block}: {' '.join(words)}: {error}") from error


def read_env(code: str) -> None:
    for line in code.splitlines():
        if line and not line.startswith("#"):
            check_variable(line.partition("=")[0])


def read_ini(code: str) -> None:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(code)
    assert parser.sections()


READERS: Final[dict[str, Callable[[str], object]]] = {
    "json": json.loads,
    "env": read_env,
    "ini": read_ini,
    "yaml": lambda code: list(yaml.safe_load_all(code)),
}
CHECKED_ELSEWHERE: Final = frozenset(
    ("python", "console", "text", "mermaid", "lua", "sql", "javascript", "html", "dockerfile")
)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_language_that_is_read(page: str) -> None:
    for block in blocks_of(page):
        assert block.language in CHECKED_ELSEWHERE | READERS.keys(), f"{block}: {block.language}"
        if block.language in READERS:
            READERS[block.language](block.code)


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left_out = [block for page in PAGES for block in blocks_of(page) if block.reason]
    assert len(left_out) <= MOST_NOT_RUN, [str(block) for block in left_out]
    assert all(len(block.reason) > 10 for block in left_out)
    assert not [page for page in PAGES if re.search(r"<!-- not run(?!: [^\n]+ -->)", text_of(page))]


def test_an_output_that_differs_is_found() -> None:
    assert matches("turn …\ndone", "turn 042-abc\ndone\n")
    assert not matches("turn …\ndone", "turn 042-abc\n")


def test_no_setting_comes_from_the_developer() -> None:
    assert not [name for name in os.environ if name.endswith("_API_KEY")]
