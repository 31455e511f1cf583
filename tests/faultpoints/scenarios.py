"""What a producer does in a run: turns of every kind, and what a careful caller does about errors.

A call that fails is repeated with its idempotency key until it is answered. A producer that died
is replaced by another that plays the same from the beginning.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

import httpx2

from agentapi import ClientTool, File, Image, PendingCall, Settings
from agentapi.errors import (
    AgentAPIError,
    CallNotPending,
    TurnCancelled,
    TurnFailed,
    TurnNotFound,
    TurnNotRetryable,
)
from orchestrator import AsyncOrchestrator, AsyncTurnHandle, Orchestrator, TurnHandle
from tests.faultpoints.archive import Moves

T = TypeVar("T")

Message: TypeAlias = str | list[str | Image | File]

PATIENCE: Final = 60.0
"""Seconds after which the caller gives up, and the run has failed."""

ENDINGS: Final = frozenset({"completed", "failed", "cancelled"})

DECIDED: Final = frozenset({404, 409})
"""Answers to a request that was carried out before, and whose answer was lost."""

MAIN: Final = "\n".join(
    (
        '/look {"what": "the order"}',
        '/charge {"amount": 7}',
        '/ask_helper {"question": "Is it late?"}',
        '/ask_helper {"question": "More than one may not be asked."}',
        '/sign {"paper": "the refund"}',
    )
)

PAINT: Final = ClientTool(
    name="paint",
    description="Paint a wall.",
    parameters={"type": "object", "properties": {"colour": {"type": "string"}}},
)


@dataclass
class Story:
    """What the caller was told, for the runner.

    Attributes:
        accepted: Conversation and id of each turn that was accepted, in order.
        events: Number and type of each event that the caller was given, by turn.
        outcomes: How each turn ended, as the caller was told.
        errors: What calls raised: the type, and whether it is one of this project's errors.
        gave_up: What the caller gave up.
        expelled: Turns that were deleted since more had ended than are kept.
    """

    run: str
    accepted: list[tuple[str, str]] = field(default_factory=list)
    events: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    errors: list[tuple[str, bool]] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    expelled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + PATIENCE

    @property
    def left(self) -> float:
        """Seconds of the caller's patience that are left."""
        return max(0.1, self._deadline - time.monotonic())

    def patient(self, what: str) -> bool:
        """Whether the caller still waits."""
        if time.monotonic() >= self._deadline:
            self.gave_up.append(what)
        return not self.gave_up

    def failed(self, what: str, error: BaseException) -> bool:
        """A call failed; returns whether the caller gives up."""
        if isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
            raise error
        self.errors.append((type(error).__name__, isinstance(error, AgentAPIError)))
        if time.monotonic() < self._deadline:
            return False
        self.gave_up.append(what)
        return True

    def insist(self, what: str, call: Callable[[], T]) -> T:
        """Call until it is answered."""
        while True:
            try:
                return call()
            except (TurnFailed, CallNotPending, TurnNotFound, TurnNotRetryable):
                raise
            except BaseException as error:
                if self.failed(what, error):
                    raise
                time.sleep(0.05)

    async def insist_async(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """The same for what is awaited."""
        while True:
            try:
                return await call()
            except TurnFailed:
                raise
            except BaseException as error:
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
                if self.failed(what, error):
                    raise
                await asyncio.sleep(0.05)

    @contextmanager
    def ending(self, turn_id: str) -> Iterator[None]:
        """Around the wait for a turn's end."""
        try:
            yield
            self.outcomes[turn_id] = "completed"
        except TurnCancelled:
            self.outcomes[turn_id] = "cancelled"
        except TurnFailed as failure:
            self.outcomes[turn_id] = f"failed {failure.error_code}"


class Player:
    """Plays scenarios in this process, with producers that live as long as it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._orchestrator = Orchestrator(settings)
        self._beside = ThreadPoolExecutor(2, thread_name_prefix="beside")

    def play(self, request: dict[str, Any]) -> dict[str, Any]:
        story = Story(request["run"])
        scenarios: dict[str, Callable[[Story], None]] = {
            "turn": self._turn,
            "stop": lambda story: self._stop(story, request["worker"]),
            "gateway": lambda story: _over_http(story, request["url"]),
            "archive": self._archive,
        }
        try:
            scenarios[request["scenario"]](story)
        except BaseException as error:
            story.gave_up.append(f"the scenario ended with {type(error).__name__}")
        return asdict(story)

    def _turn(self, story: Story) -> None:
        """Tools, a child, an approval, a stream, the next turn; innocent turns beside it."""
        beside = (
            self._beside.submit(asyncio.run, self._innocent(story)),
            self._beside.submit(self._painted, story),
        )
        before = self._enqueue(story, "lead", "Hello.", "main", "b")
        main = self._enqueue(story, "lead", MAIN, "main", "m", stream=True)
        after = self._enqueue(story, "after", "And now?", "main", "a", stream=True)
        self._approve(story, main)
        self._follow(story, main)
        for handle in (before, main, after):
            self._result(story, handle)
        for others in beside:
            others.result()

    def _painted(self, story: Story) -> None:
        """A turn whose tool the caller runs and that the caller steers meanwhile, and a refusal."""
        painted = self._enqueue(
            *(story, "painter", '/paint {"colour": "red"}', "painted", "p"),
            stream=True,
            client_tools=[PAINT],
        )
        refused = self._enqueue(story, "prim", "Do harm.", "refused", "r", stream=True)
        calls: list[PendingCall] = []
        while story.patient("paint") and not story.insist("info", painted.status).ended:
            if calls := story.insist("pending", painted.pending):
                break
            time.sleep(0.01)
        steers = self._enqueue(story, "painter", "Now dry it.", "painted", "s", on_busy="steer")
        for call in calls:
            # Refused when the turn has failed meanwhile.
            with suppress(CallNotPending):
                story.insist("answer", lambda c=call: painted.answer(c.call_id, "done"))  # type: ignore[misc]
        self._follow(story, painted)
        for handle in (painted, steers, refused):
            self._result(story, handle)

    def _stop(self, story: Story, worker: int) -> None:
        """Turns that are cancelled while they run and while they wait, one that waits too long and
        one that fails twice; then their worker is stopped, and one turn goes on in another."""
        nap = '/nap {"seconds": 30}'
        waits = self._enqueue(story, "beside", nap, "cancelled", "w", stream=True)
        behind = self._enqueue(story, "beside", nap, "cancelled", "b")
        late = self._enqueue(story, "beside", nap, "cancelled", "l", deadline=0.3)
        doomed = self._enqueue(story, "doomed", '/nap {"seconds": 0}', "doomed", "d")
        story.insist("wait", lambda: _until(lambda: _begun(waits), story.left))
        self._result(story, late)
        for handle in (behind, waits):
            story.insist("cancel", handle.cancel)
            self._result(story, handle)
        self._result(story, doomed)
        # Refused when the first call was carried out and its answer lost.
        with suppress(TurnNotRetryable):
            story.insist("retry", doomed.retry)
        self._result(story, doomed)
        # The last one, so that it is at work when the worker stops.
        goes_on = self._enqueue(story, "beside", '/nap {"seconds": 2}', "goes on", "g")
        story.insist("wait", lambda: _until(lambda: _begun(goes_on), story.left))
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)
        self._result(story, goes_on)

    def _archive(self, story: Story) -> None:
        """A conversation moves to the archive, comes back for a turn, and moves there again. Its
        turns move as well; one comes back for a tool, and one is deleted: they are too many."""
        message: Message = ["Keep this.", Image(data=b"\x89PNG", media_type="image/png")]
        moves = Moves(self._settings.redis_url, f"{story.run}:cold")

        def wait(what: str, happened: Callable[[], bool]) -> None:
            story.insist(what, lambda: _until(happened, story.left))

        def turn(agent: str, message: Message, key: str) -> str:
            handle = self._enqueue(story, agent, message, "cold", key, stream=True)
            self._follow(story, handle)
            self._result(story, handle)
            moves.turns(handle.turn_id)
            wait("a turn's move", lambda: moves.settled(handle.turn_id))
            return handle.turn_id

        def rest() -> None:
            moves.conversations()
            wait("the move", moves.at_rest)
            moves.nothing()

        first = turn("painter", message, "f")
        rest()
        second = turn("painter", "And now?", "s")
        turn("reader", f'/recall {{"turn": "{first}"}}', "r")
        story.expelled += moves.expelled([first, second])
        rest()
        moves.close()

    def _enqueue(
        self, story: Story, agent: str, message: Message, where: str, key: str, **more: Any
    ) -> TurnHandle:
        conversation = f"{story.run}:{where}"
        handle = story.insist(
            "enqueue",
            lambda: self._orchestrator.enqueue(
                agent, message, conversation_id=conversation, idempotency_key=key, **more
            ),
        )
        story.accepted.append((conversation, handle.turn_id))
        return handle

    def _approve(self, story: Story, handle: TurnHandle) -> None:
        while story.patient("approve") and not story.insist("info", handle.status).ended:
            calls = story.insist("pending", handle.pending)
            for call in calls:
                try:
                    story.insist("approve", lambda c=call: handle.approve(c.call_id))  # type: ignore[misc]
                except CallNotPending:
                    continue
                return
            time.sleep(0.01)

    def _follow(self, story: Story, handle: TurnHandle) -> None:
        got = story.events.setdefault(handle.turn_id, [])

        def follow() -> None:
            after = got[-1][0] if got else -1
            for event in handle.events(after, timeout=story.left):
                got.append((event.number, event.type.value))

        story.insist("events", follow)

    def _result(self, story: Story, handle: TurnHandle) -> None:
        with story.ending(handle.turn_id):
            story.insist("result", lambda: handle.result(timeout=story.left))

    async def _innocent(self, story: Story) -> None:
        """A turn beside all others, by the producer for asyncio."""
        conversation = f"{story.run}:beside"
        picture = Image(data=b"\x89PNG", media_type="image/png")
        message: Message = ['/nap {"seconds": 0.2}', picture]
        producer = AsyncOrchestrator(self._settings)

        async def enqueue() -> AsyncTurnHandle:
            return await producer.enqueue(
                "beside", message, conversation_id=conversation, idempotency_key="i", stream=True
            )

        handle = await story.insist_async("enqueue", enqueue)
        story.accepted.append((conversation, handle.turn_id))
        got = story.events.setdefault(handle.turn_id, [])

        async def follow() -> None:
            async with asyncio.timeout(story.left):
                async for event in handle.events(got[-1][0] if got else -1):
                    got.append((event.number, event.type.value))

        following = asyncio.create_task(story.insist_async("events", follow))
        with story.ending(handle.turn_id):
            await story.insist_async("result", lambda: handle.result(timeout=story.left))
        await following
        await story.insist_async("close", producer.aclose)


def _begun(handle: TurnHandle) -> bool:
    """Whether a worker is, or was, at a turn's tools."""
    turn = handle.info()
    return turn.steps > 0 or turn.status.ended


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen")
        time.sleep(0.01)


class _HttpError(Exception):
    """The gateway refused, or could not."""


def _over_http(story: Story, url: str) -> None:
    """The same turn through the gateway, natively, and another by OpenAI's API."""
    with httpx2.Client(base_url=url, timeout=10) as http:
        where = f"{story.run}-main"

        def ask(method: str, path: str, key: str = "", **body: Any) -> dict[str, Any]:
            headers = {"Idempotency-Key": key} if key else {}

            def send() -> dict[str, Any]:
                answer = http.request(method, path, json=body or None, headers=headers)
                if answer.status_code >= 400 and answer.status_code not in DECIDED:
                    raise _HttpError(answer.status_code)
                found: dict[str, Any] = answer.json()
                return found

            return story.insist(f"{method} {path.split('/')[1]}", send)

        beside = threading.Thread(target=_respond, args=(story, url))
        beside.start()
        sent = {"agent": "lead", "message": MAIN, "stream": True}
        main = ask("POST", f"/conversations/{where}/turns", "m", **sent)["turn_id"]
        story.accepted.append((f"gw:local:{where}", main))
        sent = {"agent": "after", "message": "And now?"}
        after = ask("POST", f"/conversations/{where}/turns", "a", **sent)["turn_id"]
        story.accepted.append((f"gw:local:{where}", after))
        _approve_over_http(story, ask, main)
        for turn in (main, after):
            story.insist("events", lambda t=turn: _read_events(story, http, t))  # type: ignore[misc]
            story.outcomes[turn] = ask("GET", f"/turns/{turn}")["status"]
        beside.join()


def _approve_over_http(story: Story, ask: Callable[..., dict[str, Any]], turn: str) -> None:
    while story.patient("approve") and ask("GET", f"/turns/{turn}")["status"] not in ENDINGS:
        for call in ask("GET", f"/turns/{turn}/calls").get("calls", ()):
            ask("POST", f"/turns/{turn}/calls/{call['call_id']}", verdict="approved")
            return
        time.sleep(0.01)


def _read_events(story: Story, http: httpx2.Client, turn: str) -> None:
    """Follow a turn's events; a stream that is cut is resumed."""
    got = story.events.setdefault(turn, [])
    headers = {"Last-Event-ID": str(got[-1][0])} if got else {}
    with http.stream("GET", f"/turns/{turn}/events", headers=headers, timeout=5) as stream:
        if stream.status_code == 204:
            return
        if stream.status_code != 200:
            raise _HttpError(stream.status_code)
        for line in stream.iter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if "number" in event:
                    got.append((event["number"], event["type"]))
    if not got or got[-1][1] not in ENDINGS:
        raise _HttpError("the stream was cut")


def _respond(story: Story, url: str) -> None:
    """A response in a conversation of OpenAI's API, one that follows it, and the end of both."""

    def send(method: str, path: str, key: str = "", **options: Any) -> Any:
        def once() -> Any:
            with httpx2.Client(base_url=url, timeout=10) as http:
                headers = {"Idempotency-Key": key} if key else {}
                answer = http.request(method, path, headers=headers, **options)
            if answer.status_code >= 400 and answer.status_code != 404:
                raise _HttpError(answer.status_code)
            return answer.json()

        return story.insist(f"{method} {path}", once)

    conversation = send("POST", "/v1/conversations", json={"metadata": {"run": story.run}})["id"]
    body = {"model": "beside", "input": '/nap {"seconds": 0.2}', "conversation": conversation}
    first = send("POST", "/v1/responses", "r", json=body)
    more = {"model": "beside", "input": "And?", "previous_response_id": first.get("id")}
    second = send("POST", "/v1/responses", "s", json=more)
    send("GET", "/readyz")
    for answer in (first, second):
        if answer.get("status") not in ENDINGS:
            story.gave_up.append(f"a response is {answer.get('status')}")
    send("DELETE", f"/conversations/{conversation}")
