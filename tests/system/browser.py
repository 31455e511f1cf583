"""A person at a browser: Chromium, what it complains about, and what a person may need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, Literal

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Playwright,
    Request,
    Response,
)

from tests.system.packages import chromium

Scheme = Literal["light", "dark"]

SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")
NARROW: Final = 320
"""Pixels: the width of a small telephone, and of a page at 400 % on a desktop (WCAG 1.4.10)."""

_RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

_WIDER_THAN_THE_PAGE: Final = """() => {
  const scrolls = (element) => {
    for (let above = element.parentElement; above; above = above.parentElement) {
      if (/auto|scroll/.test(getComputedStyle(above).overflowX)) return true;
    }
    return false;
  };
  const width = document.documentElement.clientWidth;
  const named = (e) => e.tagName.toLowerCase() + (e.id ? '#' + e.id : '')
    + (e.getAttribute('class') ? '.' + e.getAttribute('class').replaceAll(' ', '.') : '');
  const wide = [...document.body.querySelectorAll('*')].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 1 && box.right > width + 1 && box.left < 10000
      && !element.closest('.visually-hidden') && !scrolls(element);
  });
  if (document.documentElement.scrollWidth > width) wide.unshift(document.documentElement);
  return wide.slice(0, 5).map(named);
}"""
"""What does not fit into the page's width, unless it scrolls by itself, as a wide table may."""

_FOCUSED: Final = """() => {
  const focused = document.activeElement;
  if (!focused || focused === document.body) return null;
  const style = getComputedStyle(focused);
  const box = focused.getBoundingClientRect();
  return {
    name: (focused.getAttribute('aria-label') || focused.innerText || focused.name || '').trim(),
    tag: focused.tagName.toLowerCase(),
    outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
    visible: box.width > 0 && box.height > 0,
  };
}"""


@dataclass(frozen=True, kw_only=True)
class Focused:
    """The element that has the keyboard's focus.

    Attributes:
        name: What a person reads on it.
        tag: Its kind, such as ``a``.
        outlined: Whether an outline shows the focus.
        visible: Whether it takes space on the page.
    """

    name: str
    tag: str
    outlined: bool
    visible: bool


@dataclass
class Visit:
    """One browser profile at one gateway: its cookies, and everything that went wrong in it.

    Attributes:
        url: The gateway's address.
        context: The profile.
        faults: Script errors, violations of the content security policy, server errors, dialogs,
            and requests to other servers. `expect` takes out what a test provoked.
    """

    url: str
    context: BrowserContext
    faults: list[str] = field(default_factory=list)

    def page(self, path: str | None = None) -> Page:
        """Open a tab, and a page in it."""
        page = self.context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"script error: {error}"))
        page.on("request", self._request)
        page.on("response", self._response)
        page.on("dialog", self._dialog)
        if path is not None:
            page.goto(f"{self.url}{path}")
        return page

    def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.faults.append(f"request to {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 500:
            self.faults.append(f"{response.status} from {response.url}")

    def expect(self, pattern: str) -> None:
        """Take out faults that the test provoked; there must be some."""
        found = [fault for fault in self.faults if re.search(pattern, fault)]
        assert found, f"no fault like {pattern!r} in {self.faults}"
        self.faults = [fault for fault in self.faults if fault not in found]


class Visits:
    """A running Chromium, and the profiles that were opened in it."""

    def __init__(self, browser: Browser) -> None:
        """Use a browser that somebody else closes."""
        self._browser = browser

    @contextmanager
    def visit(
        self,
        url: str,
        *,
        scripts: bool = True,
        scheme: Scheme = "light",
        width: int = 1280,
        check: bool = True,
    ) -> Iterator[Visit]:
        """Open a profile of its own.

        Args:
            url: The gateway's address.
            scripts: Whether scripts run.
            scheme: The colours that the person prefers.
            width: Of the window, in pixels.
            check: Whether faults that are left at the end fail the test.
        """
        context = self._browser.new_context(
            java_script_enabled=scripts,
            color_scheme=scheme,
            viewport={"width": width, "height": 800},
            reduced_motion="reduce",
        )
        context.set_default_timeout(60_000)
        visit = Visit(url=url, context=context)
        try:
            yield visit
        finally:
            context.close()
        if check:
            assert visit.faults == []


def launch(playwright: Playwright) -> Browser:
    """Start Chromium. As root it needs to be told that it has no sandbox."""
    return playwright.chromium.launch(
        executable_path=chromium(),
        args=[
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--force-color-profile=srgb",
            # Names that an attacker has made to lead to this machine.
            "--host-resolver-rules=MAP *.test 127.0.0.1",
        ],
    )


def violations(page: Page) -> list[str]:
    """What axe finds: WCAG 2.2 at level AA, and good practice. One line each, with an element."""
    if not page.evaluate("typeof window.axe === 'object'"):
        source = resources.files("axe_playwright_python").joinpath("axe.min.js")
        page.evaluate(source.read_text(encoding="utf-8"))
    options = {
        "runOnly": {"type": "tag", "values": _RULES},
        "resultTypes": ["violations"],
    }
    found: Any = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{page.url}: {violation['id']}: {violation['help']}: {node['html'][:200]} "
        f"{node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def too_wide(page: Page) -> list[str]:
    """Elements that make a person scroll sideways."""
    found: list[str] = page.evaluate(_WIDER_THAN_THE_PAGE)
    return found


def focused(page: Page) -> Focused | None:
    """The element that has the focus."""
    found: Any = page.evaluate(_FOCUSED)
    return None if found is None else Focused(**found)


def tab_to(page: Page, name: str, *, most: int = 80) -> Focused:
    """Press Tab until the element with this text has the focus; each on the way must show it.

    Raises:
        AssertionError: It is not reached, or an element on the way does not show that it has the
            focus.
    """
    seen: list[str] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        now = focused(page)
        if now is None:
            continue
        assert now.visible, f"an element that is not seen takes the focus: {now}"
        assert now.outlined, f"the focus is not seen: {now}"
        if re.search(name, now.name):
            return now
        seen.append(now.name)
    raise AssertionError(f"Tab does not reach {name!r}, only {seen}")
