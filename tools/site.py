"""Builds the documentation's site into .site: `make docs`.

The pages are first gathered in .site/pages, where links lead to places within the site and what
is generated is filled in. That is plain Markdown, so that the generator behind it can be another.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tools.links import OUTSIDE, for_site
from tools.reference import ROOT, cli_page, http_page

CONFIG: Final = ROOT / "tools/site.toml"
SITE: Final = Path(".site")
GENERATED: Final = {"cli": cli_page, "http": http_page}


def gather(folder: Path) -> None:
    """Write all pages and pictures of the site into an empty folder."""
    docs = ROOT / "docs"
    for source in [*docs.rglob("*"), *(ROOT / name for name in OUTSIDE)]:
        if source.is_dir():
            continue
        inside = source.is_relative_to(docs)
        target = folder / source.relative_to(docs if inside else ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            page = source.relative_to(ROOT).as_posix()
            target.write_text(fill_in(for_site(page, source.read_text())))
        else:
            shutil.copyfile(source, target)


def fill_in(markdown: str) -> str:
    """The page with what is generated in place of its markers."""
    for name, make in GENERATED.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown


def build(folder: Path) -> int:
    """Build the site.

    Args:
        folder: Gets `pages`, `html` and the generator's configuration; emptied first.

    Returns:
        The generator's exit code; not 0 at any warning.
    """
    shutil.rmtree(folder, ignore_errors=True)
    gather(folder / "pages")
    (folder / "zensical.toml").write_text(CONFIG.read_text().replace("@ROOT@", str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=folder, check=False
    )
    return done.returncode


def main() -> None:
    """Build into .site, or into the folder that is given."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    code = build(folder)
    if code == 0:
        print(f"python -m http.server --directory {folder}/html 8000")
    sys.exit(code)


if __name__ == "__main__":
    main()
