"""Runs a page's Python blocks, in order, in a folder and a namespace of their own."""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import os
import sys
import types
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final, Self

from agentapi.metrics import install, recorder
from tests.documents.blocks import Block, matches

GATEWAY: Final = "http://127.0.0.1:8080"
"""Where the pages say that the gateway is."""


class Sandbox:
    """A folder with a page's files, and the names that its blocks have made.

    Attributes:
        folder: Where the page's files are; the working directory meanwhile.
        printed: What the last block printed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed = ""
        self._modules: list[str] = []
        self._page = types.ModuleType("page")
        self._loop = asyncio.Runner()

    def __enter__(self) -> Self:
        # Annotations, pickles and dataclasses look a name up by its module.
        sys.modules["page"] = self._page
        self._recorder = recorder()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()
        # A page may show how to record metrics; the process has one recorder.
        install(self._recorder)
        for name in ("page", *self._modules):
            sys.modules.pop(name, None)

    def write(self, block: Block) -> None:
        """Write a titled block as a file; a module can be imported from then on."""
        file = self.folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.code)
        if file.suffix == ".py":
            sys.modules.pop(file.stem, None)
            self._modules.append(file.stem)

    def run(self, block: Block) -> None:
        """Run a block; ``await`` outside functions works, as in IPython.

        Raises:
            Exception: Whatever the block raises, with its page and line.
        """
        source = block.code.replace(GATEWAY, os.environ.get("GATEWAY_URL", GATEWAY))
        code = compile(
            "\n" * (block.line - 1) + source,
            block.page,
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        out = io.StringIO()
        names: dict[str, Any] = self._page.__dict__
        with redirect_stdout(out):
            # Only code of our own pages comes here.
            value = eval(code, names)
            if inspect.iscoroutine(value):
                self._loop.run(value)
        self.printed = out.getvalue()

    def check_output(self, block: Block) -> None:
        """Raise AssertionError if the last block printed something else."""
        assert matches(block.code, self.printed), f"{block}: printed {self.printed!r}"
