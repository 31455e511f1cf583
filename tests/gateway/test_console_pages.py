"""The pages of the console: what they show to whom, and what their forms do."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest

from agentapi import File, Image
from agentapi.redis.connection import connect
from agentapi.redis.keys import conversation_keys
from agentapi.stores import TurnQuery
from agentapi.turns import TurnStatus
from orchestrator import Orchestrator, TurnHandle
from orchestrator.gateway.tenants.scopes import Scope
from tests.faults import until
from tests.gateway.conftest import Served
from tests.gateway.console import HOSTILE, Browser, hidden, new_key, text_of

SECRET = "only-the-user-said-this"
STRANGE = "a/b?c=<i>&\u202e#é"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LONG = "x" * 30_000


class Elements(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.attributes |= set(given)
        self.addresses += [given[name] or "" for name in ("src", "href", "action") if name in given]
        if identity := given.get("id"):
            self.ids.append(identity)
        if tag == "script":
            assert "src" in given, "a script in the page"
            self.scripts += 1


@dataclass(frozen=True, kw_only=True)
class People:
    """Browsers of people with different keys."""

    reader: Browser
    """Sees that there is something."""
    insider: Browser
    """Sees what was said, and may send messages."""
    stranger: Browser
    """Of another tenant."""
    operator: Browser
    """Sees all tenants, and not what was said."""
    admin: Browser
    """Sees and may do everything."""


@pytest.fixture(scope="module")
def producer(served: Served) -> Iterator[Orchestrator]:
    with Orchestrator(served.stack.settings) as made:
        yield made


@pytest.fixture(scope="module")
def people(served: Served) -> Iterator[People]:
    def signed_in(tenant: str, *scopes: Scope) -> Browser:
        browser = Browser(served.url)
        key = new_key(served.stack.settings, tenant, scopes)[1]
        assert browser.sign_in(key).status_code == 303
        return browser

    found = People(
        reader=signed_in("acme", Scope.READ),
        insider=signed_in("acme", Scope.CONTENT, Scope.TURNS),
        stranger=signed_in("evil", Scope.CONTENT, Scope.TURNS),
        operator=signed_in("ops", Scope.OPERATE),
        admin=signed_in("ops", Scope.OPERATE, Scope.CONTENT),
    )
    yield found
    for browser in (found.reader, found.insider, found.stranger, found.operator, found.admin):
        browser.close()


@pytest.fixture(scope="module")
def said(producer: Orchestrator) -> dict[str, str]:
    """Turns by what is special about them; all have ended."""

    def ask(agent: str, message: str, conversation_id: str, user_id: str = "ann") -> TurnHandle:
        tenant = "acme" if conversation_id.startswith("gw:acme:") else None
        return producer.enqueue(
            agent,
            message,
            conversation_id=conversation_id,
            tenant_id=tenant,
            user_id=user_id,
        )

    asked = {
        "secret": ask("tools", SECRET, "gw:acme:secret"),
        "hostile": ask("tools", HOSTILE, STRANGE, HOSTILE[:60]),
        "long": ask("tools", LONG, "gw:acme:long"),
        "fails": ask("faulty", "hi", "gw:acme:fails"),
    }
    until(lambda: all(handle.status().ended for handle in asked.values()))
    return {name: handle.turn_id for name, handle in asked.items()}


def conversation(conversation_id: str) -> str:
    return f"/console/conversation?{urlencode({'id': conversation_id})}"


ADDRESSES = [
    "/console",
    "/console/turns",
    "/console/conversations",
    conversation("gw:acme:secret"),
    conversation("gw:acme:long"),
    conversation(STRANGE),
    f"/console/conversation/message?{urlencode({'id': STRANGE, 'at': 0})}",
    "/console/sign-in",
    "/console/none",
    conversation("none"),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_page_is_well_made(people: People, said: dict[str, str], address: str) -> None:
    page = people.admin.get(address)
    headers = page.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert "cross-origin-opener-policy" not in headers
    text = page.text
    assert text.startswith("<!doctype html>")
    elements = Elements()
    elements.feed(text)
    # What the policy would not let pass must not be there, or something is missing on the page.
    assert not {name for name in elements.attributes if name == "style" or name.startswith("on")}
    assert "style" not in elements.tags
    assert all(address.startswith(("/console", "#")) for address in elements.addresses)
    # Text of others stays text.
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    for character in "\u202e\x07\x1b":
        assert character not in elements.text
    assert elements.scripts == 2
    assert len(elements.ids) == len(set(elements.ids))


def test_files_of_the_pages_may_be_kept(people: People) -> None:
    page = people.reader.get("/console").text
    files = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page)
    assert len(files) == 4
    for address in files:
        kept = people.reader.get(address)
        assert kept.status_code == 200
        assert "immutable" in kept.headers["cache-control"]
        assert "?v=" in address


def test_what_was_said_is_for_those_who_may_see_it(people: People, said: dict[str, str]) -> None:
    for address in (conversation("gw:acme:secret"), "/console/turns", "/console/conversations"):
        assert SECRET not in people.reader.get(address).text
        assert SECRET not in people.operator.get(address).text
    assert SECRET in people.insider.get(conversation("gw:acme:secret")).text
    assert SECRET in people.admin.get(conversation("gw:acme:secret")).text
    assert "scope <code>content</code>" in people.reader.get(conversation("gw:acme:secret")).text
    # Nor does a search in the texts of errors tell it.
    assert people.reader.get("/console/turns?error=only").status_code == 403
    assert people.insider.get("/console/turns?error=only").status_code == 200
    whole = f"/console/conversation/message?{urlencode({'id': 'gw:acme:secret', 'at': 0})}"
    assert people.reader.get(whole).status_code == 403
    assert SECRET in people.insider.get(whole).text


def test_hostile_text_is_shown(people: People, said: dict[str, str]) -> None:
    page = people.admin.get(conversation(STRANGE)).text
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "[U+202E]evil[U+202C]\u2407\u241b[2J שלום" in page
    assert 'dir="auto"' in page
    listed = people.admin.get("/console/conversations").text
    assert "a/b?c=&lt;i&gt;&amp;[U+202E]#é" in listed
    [address] = set(re.findall(r'href="(/console/conversation\?id=a%2Fb[^"]+)"', listed))
    assert people.admin.get(address).status_code == 200


def test_long_text_is_cut_and_shown_whole_on_demand(people: People, said: dict[str, str]) -> None:
    page = people.insider.get(conversation("gw:acme:long")).text
    assert LONG not in page
    assert len(page) < 20_000
    [address] = re.findall(r'href="([^"]+)">Show all 30,000 characters', page)
    assert LONG in people.insider.get(address.replace("&amp;", "&")).text


def test_nothing_of_another_tenant(people: People, said: dict[str, str]) -> None:
    for path in ("/console", "/console/turns", "/console/conversations"):
        page = people.stranger.get(path).text
        assert "gw:acme" not in page
        assert said["secret"][:12] not in page
        assert "ann" not in re.findall(r"<bdi>([^<]*)</bdi>", page)
    for path in (
        conversation("gw:acme:secret"),
        conversation(STRANGE),
        f"/console/conversation/message?{urlencode({'id': 'gw:acme:secret', 'at': 0})}",
    ):
        assert people.stranger.get(path).status_code == 404
        assert people.stranger.get(path).text.count("there is no such conversation") == 1
    for path, fields in (
        ("/console/conversation/send", {"agent": "tools", "message": "x", "operation": "0" * 32}),
        ("/console/conversation/reset", {"sure": "yes"}),
    ):
        assert people.stranger.post(path, id="gw:acme:secret", **fields).status_code == 404
    # A filter cannot widen what somebody sees.
    page = people.stranger.get("/console/turns", tenant="acme").text
    assert said["secret"][:12] not in page
    assert (
        said["secret"][:12]
        not in people.stranger.get("/console/turns", conversation="gw:acme:secret").text
    )
    assert said["secret"][:12] in people.operator.get("/console/turns", tenant="acme").text
    assert said["secret"][:12] in people.reader.get("/console/turns").text


def test_a_tenant_finds_its_conversations_by_their_names(
    people: People, said: dict[str, str]
) -> None:
    found = people.reader.get("/console/turns", conversation="secret").text
    assert said["secret"][:12] in found
    assert said["long"][:12] not in found
    went = people.reader.get("/console/conversations", id="secret")
    assert went.headers["location"] == conversation("gw:acme:secret").replace(":", "%3A")
    assert "gw:acme" not in text_of(people.reader.get("/console/conversations").text)


def test_the_list_marks_what_is_in_the_archive(
    people: People, producer: Orchestrator, said: object
) -> None:
    with closing(connect(producer.settings)) as client:
        key = conversation_keys("gw:acme:secret").meta
        assert "archived" not in people.reader.get("/console/conversations").text
        client.hset(key, "archived", f"{'0' * 32} 2")
        page = people.reader.get("/console/conversations").text
        client.hdel(key, "archived")
    assert page.count('<span class="status archived">archived</span>') == 1


def test_filters_of_turns(people: People, said: dict[str, str]) -> None:
    def shown(**filters: str) -> set[str]:
        page = people.insider.get("/console/turns", **filters).text
        return {name for name, turn_id in said.items() if f"/console/turns/{turn_id}" in page}

    assert shown() == {"secret", "long", "fails"}
    assert shown(status="completed", user="ann", agent="tools") >= {"secret", "long"}
    assert shown(user="bob") == shown(agent="none") == shown(status="cancelled") == set()
    assert shown(since="1h", until="1s") <= {"secret", "long", "fails"}
    assert shown(until="1h") == shown(since="2999-01-01") == set()
    # Empty fields of the form are no filters.
    assert shown(agent="", user=" ", status="", conversation="") == {"secret", "long", "fails"}
    # What somebody searched for stands in the form again.
    page = people.insider.get("/console/turns", status="failed", agent='"><b>').text
    assert '<option value="failed" selected>' in page
    assert 'value="&#34;&gt;&lt;b&gt;"' in page
    for filters in ({"status": "lost"}, {"since": "yesterday"}, {"cursor": "!"}):
        refused = people.insider.get("/console/turns", **filters)
        assert refused.status_code == 400
        assert "<h1>" in refused.text
    went = people.insider.get("/console/turns", id=said["long"])
    assert went.headers["location"] == f"/console/turns/{said['long']}"


def test_pages_of_turns_by_cursor(people: People, producer: Orchestrator, served: Served) -> None:
    made = {
        producer.enqueue("tools", "hi", conversation_id=f"paged:{n}", user_id="pager").turn_id
        for n in range(70)
    }
    seen: list[str] = []
    address = "/console/turns?user=pager"
    for _ in range(10):
        page = people.operator.get(address).text
        seen += re.findall(r'<td class="keep mono"><a href="/console/turns/([^"]+)"', page)
        following = re.search(r'href="([^"]+)" rel="next"', page)
        if following is None:
            break
        address = following[1].replace("&amp;", "&")
        assert "user=pager" in address
        assert "cursor=" in address
    assert set(seen) == made
    assert len(seen) == 70
    part = people.operator.part("/console/turns", user="pager").text
    assert "<html" not in part
    assert part.count("<tr id=") == 50


def test_a_conversation_in_pages(people: People, producer: Orchestrator) -> None:
    for number in range(20):
        producer.enqueue(
            "tools", f"number {number}", conversation_id="gw:acme:pages", tenant_id="acme"
        )
    query = TurnQuery(conversation_id="gw:acme:pages", statuses=frozenset({TurnStatus.COMPLETED}))
    until(lambda: len(producer.store.lists.turns(query, 100).items) == 20)
    newest = people.insider.get(conversation("gw:acme:pages")).text
    shown = re.findall(r'id="message-(\d+)"', newest)
    assert shown == [str(position) for position in range(10, 40)]
    [older] = re.findall(r'href="([^"]+)">Older messages', newest)
    page = people.insider.get(older.replace("&amp;", "&")).text
    assert re.findall(r'id="message-(\d+)"', page) == [str(n) for n in range(10)]
    assert "Older messages" not in page
    assert "Newest messages" in page


def test_images_and_files(people: People, producer: Orchestrator) -> None:
    page = b"<script>alert(1)</script>"
    producer.enqueue(
        "tools",
        [
            "look",
            Image(data=PIXEL, media_type="image/png"),
            File(data=page, media_type="text/html", name='a;é".html'),
        ],
        conversation_id="gw:acme:files",
        tenant_id="acme",
    ).result(150)
    shown = people.insider.get(conversation("gw:acme:files")).text
    addresses = [
        address.replace("&amp;", "&")
        for address in re.findall(r'href="(/console/conversation/attachment[^"]+)"', shown)
    ]
    assert len(addresses) == 2
    assert shown.count("<img") == 1
    image, file = (people.insider.get(address) for address in addresses)
    assert (image.content, image.headers["content-type"]) == (PIXEL, "image/png")
    # A page with a script is never shown as one.
    assert file.content == page
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["content-disposition"].startswith("attachment;")
    for answer in (image, file):
        assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert people.stranger.get(addresses[0]).status_code == 404
    assert people.reader.get(addresses[0]).status_code == 403
    other = addresses[0].replace("at=0", "at=1")
    assert people.insider.get(other).status_code == 404


def test_a_message_is_sent_once(people: People, producer: Orchestrator, said: object) -> None:
    where = conversation("gw:acme:secret")
    page = people.insider.get(where).text
    fields = {
        "id": hidden(page, "id"),
        "operation": hidden(page, "operation"),
        "agent": "tools",
        "message": "from the\r\nconsole",
    }
    before = len(producer.history("gw:acme:secret"))
    for _ in range(2):
        sent = people.insider.post("/console/conversation/send", **fields)
        assert sent.status_code == 303
    until(lambda: len(producer.history("gw:acme:secret")) == before + 2)
    assert producer.history("gw:acme:secret")[-2]["content"] == "from the\nconsole"
    assert "The message was accepted." in people.insider.get(where).text
    assert "The message was accepted." not in people.insider.get(where).text
    # It is counted and named as the tenant's other turns are.
    [turn, *_] = producer.store.lists.turns(TurnQuery(conversation_id="gw:acme:secret"), 1).items
    assert turn.tenant_id == "acme"
    assert "console" in producer.turn(turn.turn_id).info().metadata


def test_a_message_that_is_refused_is_not_lost(people: People, said: object) -> None:
    page = people.insider.get(conversation("gw:acme:secret")).text
    fields = {
        "id": "gw:acme:secret",
        "operation": hidden(page, "operation"),
        "agent": "no-such-agent",
        "message": "keep <this>",
    }
    refused = people.insider.post("/console/conversation/send", **fields)
    assert refused.status_code == 404
    assert "no-such-agent" in refused.text
    assert ">keep &lt;this&gt;</textarea>" in refused.text
    assert 'role="alert"' in refused.text
    incomplete = {**fields, "operation": "x"}
    assert people.insider.post("/console/conversation/send", **incomplete).status_code == 400
    # Who may only read has no form, and cannot post one.
    assert "<textarea" not in people.reader.get(conversation("gw:acme:secret")).text
    assert people.reader.post("/console/conversation/send", **fields).status_code == 403


def test_an_operator_sends_in_conversations_of_producers(
    people: People, producer: Orchestrator, said: object
) -> None:
    page = people.operator.get(conversation(STRANGE)).text
    fields = {"operation": hidden(page, "operation"), "agent": "tools", "message": "hi"}
    assert (
        people.operator.post("/console/conversation/send", id=STRANGE, **fields).status_code == 303
    )
    until(lambda: len(producer.history(STRANGE)) == 4)


def test_a_conversation_begins(people: People, producer: Orchestrator) -> None:
    page = people.insider.get("/console/conversations").text
    fields = {"operation": hidden(page, "operation"), "agent": "tools", "message": "hello"}
    first, again = (people.insider.post("/console/conversations/start", **fields) for _ in "12")
    assert first.status_code == 303
    assert first.headers["location"] == again.headers["location"]
    until(lambda: "You said: hello" in people.insider.get(first.headers["location"]).text)
    assert people.stranger.get(first.headers["location"]).status_code == 404


def test_a_history_is_deleted_after_it_was_confirmed(
    people: People, producer: Orchestrator
) -> None:
    producer.enqueue("tools", "hi", conversation_id="gw:acme:gone", tenant_id="acme").result(150)
    where = conversation("gw:acme:gone")
    refused = people.insider.post("/console/conversation/reset", id="gw:acme:gone")
    assert refused.status_code == 303
    assert "Nothing was deleted" in people.insider.get(where).text
    assert len(producer.history("gw:acme:gone")) == 2
    done = people.insider.post("/console/conversation/reset", id="gw:acme:gone", sure="yes")
    assert done.headers["location"].endswith("gw%3Aacme%3Agone")
    assert "The history was deleted: 2 messages." in people.insider.get(where).text
    assert producer.history("gw:acme:gone") == []


def test_the_fleet(people: People, producer: Orchestrator, said: dict[str, str]) -> None:
    napping = [
        producer.enqueue(
            "tools", '/nap {"seconds": 600}', conversation_id=f"gw:{t}:nap", tenant_id=t
        )
        for t in ("acme", "evil")
    ]

    def part(browser: Browser) -> str:
        return browser.part("/console").text

    def shown(browser: Browser, number: int) -> bool:
        return f"/console/turns/{napping[number].turn_id}" in part(browser)

    # The workers are asked when somebody looks; later parts of the page have their answers.
    until(lambda: shown(people.operator, 0) and shown(people.operator, 1))
    until(lambda: "worker1@" in text_of(part(people.operator)))
    until(lambda: '<path class="curve"' in part(people.operator))
    fleet = text_of(part(people.operator))
    assert "Slots taken" in fleet
    assert "offline" in fleet
    assert said["fails"][:12] in fleet
    until(lambda: shown(people.reader, 0))
    # Turns that other tests have cancelled end soon.
    until(lambda: "Your running turns 1" in text_of(part(people.reader)))
    own = part(people.reader)
    assert not shown(people.reader, 1)
    assert said["fails"][:12] in own
    # Numbers of the whole fleet tell about other tenants.
    assert "Slots taken" not in own
    assert '<path class="curve"' not in own
    assert not shown(people.stranger, 0)
    for handle in napping:
        handle.cancel()
    until(lambda: all(handle.status().ended for handle in napping))
