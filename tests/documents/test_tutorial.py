"""The tutorial, followed to the letter: every command runs, and prints what the page says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.stack.processes import free_port
from tests.documents.blocks import Block, blocks_of, matches

PAGE = "docs/tutorial.md"
PORT = "6379"
TIMEOUT = 120.0


class Terminal:
    """A terminal in which a program keeps running; its output is read from a file."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.seen = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: str, cwd: Path, env: dict[str, str]) -> None:
        assert self.process is None
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=cwd,
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def text(self) -> str:
        """What it has printed so far; a last character may be there by half."""
        return self.log.read_text(errors="replace")

    def wait_for(self, lines: list[str]) -> None:
        """Wait until the lines have come, in order; others may stand between them."""
        deadline = time.monotonic() + TIMEOUT
        while not self._find(lines):
            text = self.text()
            assert self.process is not None
            assert self.process.poll() is None, text
            assert time.monotonic() < deadline, f"{lines} not in: {text[self.seen :]}"
            time.sleep(0.05)

    def _find(self, lines: list[str]) -> bool:
        text = self.text()
        place = self.seen
        for line in lines:
            found = re.compile(pattern_of(line)).search(text, place)
            if found is None:
                return False
            place = found.end()
        self.seen = place
        return True

    def stop(self) -> None:
        """Ctrl-C, then an end of all that the program has started."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def pattern_of(line: str) -> str:
    return "[^\n]*".join(re.escape(part) for part in line.split("…"))


class Reader:
    """Somebody who follows the page.

    Attributes:
        folder: The first terminal's working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.folder = folder
        self.port = str(free_port())
        self.terminals: dict[str, Terminal] = {}
        self.written: set[str] = set()
        bin_folder = str(Path(sys.executable).parent)
        self.env = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            # Those of the tools that a developer has installed beside.
            "PYTHONWARNINGS": "ignore",
            # A developer's options would change what the page's own test prints.
            "PYTEST_ADDOPTS": "",
        }

    def text(self, code: str) -> str:
        return code.replace(PORT, self.port)

    def follow(self, block: Block) -> None:
        if block.language == "console":
            if block.title:
                self._look(block)
            else:
                self._type(block)
        elif block.title:
            self._write(block)

    def _write(self, block: Block) -> None:
        file = self.folder / block.title
        if block.title not in self.written and file.exists():
            # The page shows what is there already.
            assert file.read_text() == block.code, f"{block}: {file.name} is another"
        file.write_text(self.text(block.code))
        self.written.add(block.title)

    def _type(self, block: Block) -> None:
        for command, expected in transcript(self.text(block.code)):
            if command.startswith("cd "):
                self.folder = self.folder / command.removeprefix("cd ")
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
            assert done.returncode == 0, f"{block}: {command}: {done.stdout}"
            assert matches(expected, done.stdout), f"{block}: {command}: {done.stdout!r}"

    def _look(self, block: Block) -> None:
        terminal = self.terminals.get(block.title)
        if terminal is None:
            terminal = Terminal(self.home / f"{block.title.replace(' ', '-')}.log")
            self.terminals[block.title] = terminal
        lines: list[str] = []
        for command, expected in transcript(self.text(block.code)):
            if command:
                terminal.start(command, self.folder, self.env)
            lines += [line for line in expected.splitlines() if line != "…"]
        terminal.wait_for(lines)


def transcript(code: str) -> Iterator[tuple[str, str]]:
    """Commands and what they print; output without a command has an empty one."""
    command, output = "", ""
    for line in code.splitlines():
        if line.startswith("$ "):
            if command or output:
                yield command, output
            command, output = line[2:].partition("  #")[0], ""
        else:
            output += line + "\n"
    yield command, output


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    yield made
    for terminal in reversed(made.terminals.values()):
        terminal.stop()


@pytest.mark.timeout(600)
def test_the_tutorial(reader: Reader) -> None:
    blocks = [block for block in blocks_of(PAGE) if not block.reason]
    assert len(blocks) > 10
    for block in blocks:
        reader.follow(block)
