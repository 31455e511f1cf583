"""The registry of providers is the process's, and a worker of the test run imports many modules."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]

REGISTRATION: Final = re.compile(r'register_provider\(\s*"([\w-]+)"')


def test_no_two_modules_register_the_same_provider() -> None:
    """Otherwise the module that is imported last replaces the provider of another's tests."""
    modules: dict[str, set[str]] = defaultdict(set)
    for path in sorted(TESTS.rglob("*.py")):
        for name in REGISTRATION.findall(path.read_text()):
            modules[name].add(str(path.relative_to(TESTS)))
    assert len(modules) > 10
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}
