"""The page at `/`, as a person's browser shows it."""

from __future__ import annotations

import pytest

from tests.system.browser import NARROW, SCHEMES, Scheme, Visits, too_wide, violations
from tests.system.seen import Seen


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_start_page_can_be_read(visits: Visits, seen: Seen, scheme: Scheme) -> None:
    with visits.visit(seen.url, scheme=scheme, width=NARROW) as visit:
        page = visit.page("/")
        assert "agentapi" in page.inner_text("h1")
        assert violations(page) == []
        assert too_wide(page) == []


def test_the_harness_notices_what_is_wrong(visits: Visits, seen: Seen) -> None:
    """A test that looks at a page must be able to fail."""
    with visits.visit(seen.url) as visit:
        page = visit.page("/")
        page.set_content(
            "<div style='width: 3000px'>wide</div><img src='http://127.0.0.1:9/x.png'>"
            "<script>inline()</script>"
        )
        page.evaluate("setTimeout(() => no_such_thing())")
        assert [found.rpartition(".")[2] for found in too_wide(page)] == ["html", "div"]
        assert any("image-alt" in found for found in violations(page))
        visit.expect("request to http://127.0.0.1:9/x.png")
        visit.expect("Executing inline script violates")
        visit.expect("Loading the image .* violates")
        visit.expect("script error: no_such_thing")
