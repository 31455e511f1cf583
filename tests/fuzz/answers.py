"""HTTP answers of servers that do as they like: status, headers, framing, pieces and endings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hypothesis import strategies as st

from tests.fuzz.mutations import Mutation, mutations
from tests.fuzz.values import CANARY, encode


class Framing(StrEnum):
    """How a client learns where the body ends."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"
    TOO_LONG = "too long"
    """The length is more than what comes."""
    TOO_SHORT = "too short"


class Ending(StrEnum):
    """What becomes of the connection."""

    KEEP = "keep"
    CLOSE = "close"
    ABORT = "abort"
    """In the middle of the body."""
    HANG = "hang"
    """After half of the body nothing comes any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How an answer is sent."""

    status: int = 200
    content_type: str = "application/json"
    header: tuple[str, str] | None = None
    framing: Framing = Framing.LENGTH
    ending: Ending = Ending.KEEP
    piece: int = 100_000
    """Bytes that are written at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer whose bytes are known."""

    body: bytes
    manner: Manner

    def head(self) -> bytes:
        """Status line and headers."""
        manner = self.manner
        lines = [f"HTTP/1.1 {manner.status} Said", f"Content-Type: {manner.content_type}"]
        match manner.framing:
            case Framing.CHUNKED:
                lines.append("Transfer-Encoding: chunked")
            case Framing.LENGTH | Framing.TOO_LONG | Framing.TOO_SHORT:
                lines.append(f"Content-Length: {self._length()}")
        if manner.header:
            lines.append(f"{manner.header[0]}: {manner.header[1]}")
        if manner.ending is not Ending.KEEP or manner.framing is Framing.CLOSE:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def _length(self) -> int:
        difference = {Framing.TOO_LONG: 7, Framing.TOO_SHORT: -7}.get(self.manner.framing, 0)
        return max(0, len(self.body) + difference)

    def pieces(self) -> list[bytes]:
        """The body as it is written, framed; half of it if it does not end."""
        body = self.body
        if self.manner.ending in (Ending.ABORT, Ending.HANG):
            body = body[: len(body) // 2]
        size = max(self.manner.piece, len(body) // 200 + 1)
        found = [body[at : at + size] for at in range(0, len(body), size)]
        if self.manner.framing is not Framing.CHUNKED:
            return found
        framed = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in found]
        whole = self.manner.ending in (Ending.KEEP, Ending.CLOSE)
        return [*framed, b"0\r\n\r\n"] if whole else framed


_STATUSES: Final = (200, 201, 204, 301, 302, 400, 401, 404, 413, 418, 422, 429, 500, 503, 529, 599)
_TYPES: Final = (
    "application/json",
    "text/event-stream",
    "text/html; charset=utf-7",
    "application/json; charset=nonsense",
    "",
)
_HEADERS: Final = (
    ("Retry-After", "-1"),
    ("Retry-After", "1e400"),
    ("Retry-After", "Wed, 21 Oct 9999 07:28:00 GMT"),
    ("Retry-After", CANARY),
    ("Retry-After-Ms", "nan"),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "br"),
    ("Content-Encoding", CANARY),
    ("Transfer-Encoding", CANARY),
    ("Content-Length", "12"),
    ("Location", f"http://127.0.0.1:9/{CANARY}"),
    ("Set-Cookie", f"a={CANARY}\udcff; Path=/"),
    ("X-Long", CANARY * 4000),
)


def manners(content_type: str) -> st.SearchStrategy[Manner]:
    """Ways to send a body: mostly one thing at a time is odd."""
    pieces = st.sampled_from((1, 7, 64, 100_000))
    plain = st.builds(Manner, content_type=st.just(content_type), piece=pieces)
    odd = st.one_of(
        st.builds(Manner, content_type=st.just(content_type), status=st.sampled_from(_STATUSES)),
        st.builds(Manner, content_type=st.sampled_from(_TYPES)),
        st.builds(Manner, content_type=st.just(content_type), header=st.sampled_from(_HEADERS)),
        st.builds(
            Manner,
            content_type=st.just(content_type),
            framing=st.sampled_from(Framing),
            ending=st.sampled_from((Ending.KEEP, Ending.CLOSE, Ending.ABORT)),
            piece=pieces,
        ),
    )
    return st.one_of(plain, plain, odd)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainAnswer:
    """A document that is changed on its way."""

    document: str
    mutation: Mutation
    manner: Manner

    def answer(self, documents: dict[str, Any]) -> Answer:
        """With the bytes of one of the valid documents."""
        return Answer(body=self.mutation.text(documents[self.document]), manner=self.manner)


def plain_answers(documents: Sequence[str]) -> st.SearchStrategy[PlainAnswer]:
    """Plain answers by the names of their documents."""
    return st.builds(
        PlainAnswer,
        document=st.sampled_from(sorted(documents)),
        mutation=st.one_of(mutations(), mutations(), st.just(Mutation())),
        manner=manners("application/json"),
    )


class Disorder(StrEnum):
    """What is done to the events of a stream."""

    NONE = "none"
    DROP = "drop"
    REPEAT = "repeat"
    SWAP = "swap"
    UNENDED = "unended"
    """The last two are missing."""
    ERROR = "error"
    """An error comes in the middle."""
    LONG = "long"
    """One of them comes five hundred times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamAnswer:
    """A stream of documents; some are changed, some are missing."""

    document: str
    place: int
    mutation: Mutation
    disorder: Disorder
    frame: str
    manner: Manner
    raw: Mutation

    def answer(self, streams: dict[str, list[Any]]) -> Answer:
        """With the bytes of one of the valid streams; texts that are no JSON stay as they are."""
        valid = streams[self.document]
        changed = self.place % len(valid)
        events = [
            self._event(event, self.mutation if number == changed else Mutation())
            for number, event in enumerate(valid)
        ]
        body = b"".join(
            self.frame.encode().replace(b"{}", event) for event in self._disordered(events)
        )
        return Answer(body=self.raw.raw(body), manner=self.manner)

    def _event(self, event: Any, mutation: Mutation) -> bytes:
        return event.encode() if isinstance(event, str) else mutation.text(event)

    def _disordered(self, events: list[bytes]) -> list[bytes]:
        at = self.place % len(events)
        match self.disorder:
            case Disorder.DROP:
                return events[:at] + events[at + 1 :]
            case Disorder.REPEAT:
                return events[: at + 1] + events[at:]
            case Disorder.SWAP:
                return events[at:] + events[:at]
            case Disorder.UNENDED:
                return events[:-2]
            case Disorder.ERROR:
                fault = encode({"error": {"message": CANARY, "code": 500}}).encode()
                return [*events[:at], fault, *events[at:]]
            case Disorder.LONG:
                return events[:at] + events[at : at + 1] * 500 + events[at + 1 :]
            case _:
                return events


_FRAMES: Final = (
    "data: {}\n\n",
    "data: {}\r\n\r\n",
    "data: {}\r\r",
    "data:{}\n\n",
    "event: message\nid: 1\nretry: 1\ndata: {}\n\n",
    "event: error\ndata: {}\n\n",
    "event: thread.run\ndata: {}\n\n",
    f": {CANARY}\n\ndata: {{}}\n\n",
    "data: {}\ndata: \n\n",
    "{}\n\n",
)


def stream_answers(documents: Sequence[str]) -> st.SearchStrategy[StreamAnswer]:
    """Streams by the names of their documents."""
    return st.builds(
        StreamAnswer,
        document=st.sampled_from(sorted(documents)),
        place=st.integers(0, 20),
        mutation=st.one_of(mutations(), mutations(), st.just(Mutation())),
        disorder=st.one_of(st.just(Disorder.NONE), st.sampled_from(Disorder)),
        frame=st.one_of(st.just(_FRAMES[0]), st.sampled_from(_FRAMES)),
        manner=manners("text/event-stream"),
        raw=st.one_of(
            st.just(Mutation()),
            st.just(Mutation()),
            mutations().map(lambda found: Mutation(damage=found.damage)),
        ),
    )


def fine(document: Any) -> Answer:
    """A valid answer."""
    return Answer(body=json.dumps(document).encode(), manner=Manner())


def fine_stream(events: Sequence[Any]) -> Answer:
    """A valid stream."""
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    body = "".join(f"data: {text}\n\n" for text in texts).encode()
    return Answer(body=body, manner=Manner(content_type="text/event-stream"))
