"""What the console's pages are made with."""

from __future__ import annotations

import asyncio
import hashlib
import time
from importlib.resources import files

import pytest
from starlette.datastructures import Headers

from agentapi.errors import ConfigurationError, InvalidInput
from agentapi.turns import TurnStatus
from orchestrator.gateway.console.charts import chart_of, share_of
from orchestrator.gateway.console.filters import ConversationFilters, TurnFilters, moment
from orchestrator.gateway.console.flash import Flash, flash_from
from orchestrator.gateway.console.pages import environment
from orchestrator.gateway.console.routing import console_router, needs
from orchestrator.gateway.console.security import check_origin, own_address
from orchestrator.gateway.console.shared import SharedReads
from orchestrator.gateway.console.shown import (
    ago,
    cost,
    duration,
    is_long,
    number,
    pretty,
    rate,
    short,
    utc,
    visible,
)
from orchestrator.gateway.console.viewer import ScopeNeeded, Viewer
from orchestrator.gateway.http.errors import Forbidden, InvalidRequest
from orchestrator.gateway.tenants.scopes import DEFAULT, Scope, allowed_by, listed, scopes_of


def test_scopes() -> None:
    assert scopes_of([]) == DEFAULT == {Scope.TURNS}
    assert scopes_of(["operate", "read"]) == {Scope.OPERATE, Scope.READ}
    assert listed({Scope.OPERATE, Scope.TURNS}) == ["turns", "operate"]
    with pytest.raises(InvalidInput, match="expected turns, read, content, operate"):
        scopes_of(["root"])
    assert allowed_by({Scope.TURNS}) == {Scope.TURNS}
    assert allowed_by({Scope.OPERATE}) == {Scope.OPERATE, Scope.READ}
    assert Scope.CONTENT not in allowed_by({Scope.OPERATE})
    viewer = Viewer(tenant="acme", scopes=allowed_by({Scope.CONTENT}))
    viewer.check(Scope.READ, Scope.OPERATE)
    with pytest.raises(ScopeNeeded, match="turns or operate"):
        viewer.check(Scope.TURNS, Scope.OPERATE)


def test_a_route_that_does_not_say_who_may_enter() -> None:
    router = console_router()
    with pytest.raises(ConfigurationError, match=r"@needs\(\.\.\.\) or @public"):

        @router.get("/open")
        async def forgotten() -> None: ...

    @router.get("/closed")
    @needs(Scope.READ)
    async def said() -> None: ...

    assert [route.path for route in router.routes] == ["/console/closed"]  # type: ignore[attr-defined]


def test_templates_show_text_as_text() -> None:
    made = environment()
    assert made.autoescape is True
    template = made.from_string("{{ text }}|{{ text|visible }}|{{ text|short(3) }}")
    assert template.render(text="<b>\x00") == "&lt;b&gt;\x00|&lt;b&gt;␀|&lt;b&gt;…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x00\x07\x1b[31m\x7f\x9b", "␀␇␛[31m␡[U+009B]"),
        ("a\u202eb\u2066c\u200b\ufeff", "a[U+202E]b[U+2066]c[U+200B][U+FEFF]"),
        # Needed by languages and emojis.
        ("שלום \u200f! 👩\u200d💻", "שלום \u200f! 👩\u200d💻"),
        (7, "7"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(text: object, shown: str) -> None:
    assert visible(text) == shown


def test_numbers_and_times_for_people() -> None:
    spans = {
        0.0: "0 ms",
        0.35: "350 ms",
        4.2: "4.2 s",
        12: "12 s",
        59.96: "1 min",
        200: "3 min 20 s",
        7_500: "2 h 5 min",
        3_600 * 24 * 3 + 3_600 * 4: "3 d 4 h",
        -5: "0 ms",
    }
    assert {span: duration(span) for span in spans} == spans
    assert (duration(None), ago(None), utc(None), number(None)) == ("", "", "", "")
    assert ago(time.time() + 5) == "now"
    assert ago(time.time() - 30).endswith(" s ago")
    assert utc(0) == "1970-01-01 00:00:00 UTC"
    assert utc(1e30) == "1e+30"
    assert (number(1234567), number(1.5), rate(1234.5), rate(0.123456)) == (
        *("1,234,567", "1.50", "1,234", "0.123"),
    )
    assert (cost(0), cost(0.00012), cost(1234.5)) == ("0", "0.00012", "1,234.50")
    assert (short("abcdef", 3), is_long("abcdef", 3), is_long("abc", 3)) == ("abc…", True, False)
    assert pretty('{"b": [1, "é"]}') == '{\n  "b": [\n    1,\n    "é"\n  ]\n}'
    assert pretty("no json") == "no json"


def test_filters() -> None:
    query = TurnFilters(status=["open", "failed", ""], agent=" a ", user="", since="2h").query()
    assert query.statuses == set(TurnStatus) - {TurnStatus.COMPLETED, TurnStatus.CANCELLED}
    assert (query.agent, query.user_id) == ("a", None)
    assert query.since == pytest.approx(time.time() - 7200, abs=60)
    assert TurnFilters().query().statuses == set(TurnStatus)
    assert ConversationFilters(busy="yes").query().busy is True
    assert ConversationFilters(busy="").query().busy is None
    filters = TurnFilters(status=["failed"], agent="a&b", cursor="c")
    assert filters.address("/p", cursor=None) == "/p?agent=a%26b&status=failed"
    assert TurnFilters().address("/p") == "/p"
    assert moment("since", "2026-01-31 12:00") == moment("since", "2026-01-31T12:00:00Z")
    assert moment("since", "1700000000.5") == 1700000000.5
    assert moment("since", None) is None
    for text in ("yesterday", "5y", "-1h", "2026-13-01", "never"):
        with pytest.raises(InvalidRequest, match="expected how long ago"):
            moment("since", text)


def test_a_flash_travels_in_a_cookie() -> None:
    said = Flash(text='done; "é" \r\n<b>', kind="failed")
    cookie = said.to_cookie()
    assert cookie.isascii()
    assert not set(cookie) & set(';, "\\\r\n')
    assert flash_from(cookie) == said
    for broken in (None, "", "x", "é", "W10=", "bnVsbA==", Flash(text="x" * 9000).to_cookie()[:50]):
        assert flash_from(broken) is None


def test_a_way_back_stays_in_the_console() -> None:
    assert own_address("/console/turns?next=//evil") == "/console/turns?next=//evil"
    for address in (None, "", "/", "//evil", "/consoles", "https://x/console", "/console\n", "/v1"):
        assert own_address(address) == "/console"


def test_requests_of_other_origins() -> None:
    host = ("host", "Gateway:80")

    def sent(method: str, *headers: tuple[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in (host, *headers)]
        check_origin(method, Headers(raw=raw))

    sent("GET")
    sent("POST", ("origin", "https://gateway:80"))
    sent("POST", ("sec-fetch-site", "same-origin"))
    sent("GET", ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"))
    for method, *headers in (
        ("POST",),
        ("POST", ("origin", "null")),
        ("POST", ("origin", "http://gateway")),
        ("POST", ("origin", "http://[")),
        ("POST", ("origin", "http://gateway:80"), ("origin", "http://evil")),
        ("POST", ("sec-fetch-site", "none")),
        ("DELETE", ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")),
        ("GET", ("sec-fetch-site", "cross-site")),
        ("GET", ("origin", "http://evil")),
    ):
        with pytest.raises(Forbidden):
            sent(method, *headers)


async def test_reads_are_shared() -> None:
    now = 0.0
    reads = SharedReads(lambda: now)
    count = 0
    go = asyncio.Event()

    async def read() -> int:
        nonlocal count
        count += 1
        mine = count
        await go.wait()
        if mine == 2:
            raise ValueError("broken")
        return mine

    impatient = asyncio.create_task(reads.get("a", 1, read))
    others = [asyncio.create_task(reads.get("a", 1, read)) for _ in range(5)]
    await asyncio.sleep(0)
    # Whoever leaves takes nothing from those who wait.
    impatient.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*others) == [1] * 5
    assert await reads.get("a", 1, read) == 1
    now = 2.0
    with pytest.raises(ValueError, match="broken"):
        await reads.get("a", 1, read)
    assert await reads.get("a", 1, read) == 3, "errors are not remembered"
    assert await reads.get("a", 0, read) == 4, "a new answer was asked for"
    for key in range(1000):
        await reads.get(key, 1, read)
    assert len(reads._answers) <= 256


def test_the_scripts_of_others_are_what_was_published() -> None:
    """htmx comes from npm's package htmx.org, unchanged, with its licence."""
    static = files("orchestrator.gateway.console").joinpath("static")
    digest = hashlib.sha256(static.joinpath("htmx-4.0.1.min.js").read_bytes()).hexdigest()
    assert digest == "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
    assert "Zero-Clause BSD" in static.joinpath("htmx-LICENSE.txt").read_text()


def test_charts() -> None:
    chart = chart_of([0, 5, 10], "turns")
    assert chart is not None
    assert chart.curve == "M0.00 30.00 L50.00 16.00 L100.00 2.00"
    assert chart.area.endswith("L100 30 L0 30 Z")
    assert (chart.highest, chart.newest) == (10, 10)
    flat = chart_of([0, 0], "turns")
    assert flat is not None
    assert flat.curve == "M0.00 30.00 L100.00 30.00"
    assert chart_of([1], "turns") is None
    assert (share_of(5, None), share_of(5, 0), share_of(5, 10), share_of(50, 10)) == (
        *(None, None, 50, 100),
    )
