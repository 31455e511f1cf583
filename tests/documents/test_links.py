"""No dead link: in the repository by file and heading, in the site by MkDocs's strict build."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.documents.blocks import PAGES, ROOT, text_of
from tools.links import OUTSIDE, links, without_code

CHECKED = (*PAGES, "CHANGELOG.md")


def anchors(page: str) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    text = re.sub(r"^(```|~~~).*?^\1[ \t]*$", "", text_of(page), flags=re.M | re.S)
    for heading in re.findall(r"^#{1,6} (.+)$", text, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower().strip()).replace(" ", "-")
        count = sum(1 for each in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each))
        found.add(f"{slug}-{count}" if count else slug)
    return found


@pytest.mark.parametrize("page", CHECKED)
def test_links_of_a_page(page: str) -> None:
    for link in links(page, text_of(page)):
        target = ROOT / link.path
        assert target.exists(), f"{page}: [{link.text}] leads to {link.path}, which is not there"
        if link.anchor and link.path.endswith(".md"):
            known = anchors(link.path)
            assert link.anchor in known, f"{page}: {link.path} has no heading #{link.anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_one_title(page: str) -> None:
    titles = re.findall(
        r"^# .+$", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S), re.M
    )
    assert len(titles) == 1, f"{page}: {titles}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.site", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    html = tmp_path / "html"
    assert "agentapi enqueue" in (html / "reference/cli.html").read_text()
    assert "/v1/responses" in (html / "reference/http.html").read_text()
    fetched = re.compile(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"')
    for page in html.rglob("*.html"):
        assert fetched.findall(page.read_text()) == [], f"{page.name} needs the network"


def test_the_menu_has_every_page() -> None:
    config = tomllib.loads((ROOT / "tools/site.toml").read_text())
    menu = list(pages_of(config["project"]["nav"]))
    docs = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(menu) == sorted(docs | set(OUTSIDE))


def pages_of(nav: Any) -> Iterator[str]:
    """The pages that a menu names, at any depth."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for each in nav.values():
            yield from pages_of(each)
    else:
        for each in nav:
            yield from pages_of(each)


def test_a_link_in_code_is_none() -> None:
    assert without_code("a `[b](c)` d\n```\n[e](f)\n```\n") == "a  d\n\n"
