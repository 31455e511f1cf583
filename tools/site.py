"""Builds the documentation's site into .site: `make docs`.

The pages are first collected in .site/pages, with links adapted to the site and generated parts
filled in. They are plain Markdown there, so the site generator can be replaced.
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
    """Write all pages and images of the site to an empty folder."""
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
    """Replace a page's markers with the generated parts."""
    for name, make in GENERATED.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown


def build(folder: Path) -> int:
    """Build the site.

    Args:
        folder: Receives `pages`, `html` and the generator's configuration; it is emptied first.

    Returns:
        The generator's exit code; not 0 if there was any warning.
    """
    shutil.rmtree(folder, ignore_errors=True)
    gather(folder / "pages")
    (folder / "zensical.toml").write_text(CONFIG.read_text().replace("@ROOT@", str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=folder, check=False
    )
    return done.returncode


def main() -> None:
    """Build into .site or the given folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    code = build(folder)
    if code == 0:
        print(f"python -m http.server --directory {folder}/html 8000")
    sys.exit(code)


if __name__ == "__main__":
    main()
