"""Each recipe of docs/extending.md works: applied to a copy, its own test passes there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents.blocks import Block, blocks_of, text_of
from tests.documents.recipe import apply, copy_of_the_repository, run

PAGE = "docs/extending.md"
RECIPES = {
    "A built-in provider": ("agentapi",),
    "A Lua transition": ("agentapi", "orchestrator"),
    "A command": ("orchestrator",),
    "A setting": ("agentapi", "tools"),
}
DOCUMENTS = "tests/unit/test_documents.py"
CHECKS = {
    "A built-in provider": (),
    "A Lua transition": (f"{DOCUMENTS}::test_every_script_has_a_header",),
    "A command": (),
    "A setting": (
        f"{DOCUMENTS}::test_the_settings_page_has_every_setting",
        f"{DOCUMENTS}::test_the_example_environment_has_every_setting",
    ),
}


def blocks_under(heading: str) -> list[Block]:
    """The blocks of one section of the page."""
    before, _, rest = text_of(PAGE).partition(f"## {heading}\n")
    section = rest.partition("\n## ")[0]
    first = before.count("\n")
    last = first + section.count("\n") + 1
    return [block for block in blocks_of(PAGE) if first < block.line <= last]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe(recipe: str, tmp_path: Path) -> None:
    root = copy_of_the_repository(tmp_path / "copy")
    blocks = [block for block in blocks_under(recipe) if block.title]
    assert blocks
    for block in blocks:
        apply(block, root)
    run(root, "ruff", "check", "--select", "E,F,B,UP,I,D1", "--ignore", "E501,I001,D107,D105",
        *RECIPES[recipe])  # fmt: skip
    tests = [block.title for block in blocks if block.title.startswith("tests/")]
    if any(block.language == "console" for block in blocks_under(recipe)):
        run(root, "tools.reference")
    run(root, "pytest", "-q", "-p", "no:cacheprovider", *tests, *CHECKS[recipe])


def test_every_section_is_a_recipe() -> None:
    headings = [line[3:] for line in text_of(PAGE).splitlines() if line.startswith("## ")]
    assert headings == list(RECIPES)
