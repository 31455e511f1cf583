"""``python -m tests.system.pictures``: take the pictures of the documentation."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

from orchestrator import Orchestrator
from tests.system.browser import Scheme, Visits, launch
from tests.system.packages import Missing, chromium
from tests.system.pictures.past import store_past
from tests.system.pictures.world import World, populate, shop
from tests.system.seen import conversation_page, turn_page

FOLDER: Final = Path(__file__).parents[3] / "docs" / "images"
WIDTH: Final = 1200
LOAD: Final = 20.0
"""Seconds of load before the pictures are taken."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture.

    Attributes:
        name: Of the file, without its ending.
        path: The page's address.
        height: Pixels of the page that are shown.
        scheme: The colours.
        width: Of the window, in pixels.
        waits_for: What must be on the page.
    """

    name: str
    path: str
    height: int = 760
    scheme: Scheme = "light"
    width: int = WIDTH
    waits_for: str = "main h1"


def pictures(world: World) -> Iterable[Picture]:
    """The pictures of a world."""
    return (
        Picture(name="console-fleet", path="/console", height=1020),
        Picture(name="console-turns", path="/console/turns", scheme="dark"),
        Picture(name="console-conversation", path=conversation_page(world.chat), height=900),
        Picture(name="console-turn", path=turn_page(world.taken_over.turn_id), height=1000),
        Picture(name="console-approvals", path="/console/approvals", scheme="dark", height=820),
    )


def take(world: World, visits: Visits, folder: Path) -> None:
    """Take all pictures of a world."""
    assert world.stack.gateway_url is not None
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures(world):
        with visits.visit(
            world.stack.gateway_url, scheme=picture.scheme, width=picture.width
        ) as visit:
            page = visit.page(picture.path)
            page.set_viewport_size({"width": picture.width, "height": picture.height})
            page.wait_for_selector(picture.waits_for)
            # Live parts are there once the page has asked for them.
            page.wait_for_timeout(2_500)
            page.screenshot(path=folder / f"{picture.name}.png", animations="disabled")


def main() -> None:
    """Start a shop, let things happen in it, and take the pictures."""
    try:
        chromium()
    except Missing as error:
        sys.exit(str(error))
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    with (
        tempfile.TemporaryDirectory(prefix="agentapi-shop-") as folder,
        shop(Path(folder)) as stack,
        Orchestrator(stack.settings) as orchestrator,
    ):
        store_past(stack.redis_url)
        world = populate(stack, orchestrator, seconds=LOAD)
        with sync_playwright() as playwright:
            browser = launch(playwright)
            take(world, Visits(browser), target)
            browser.close()
    for taken in sorted(target.glob("console-*.png")):
        sys.stdout.write(f"{taken} {taken.stat().st_size // 1024} KiB\n")


if __name__ == "__main__":
    main()
