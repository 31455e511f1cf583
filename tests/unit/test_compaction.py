"""Long conversations: what grows old is summarised beside them, and the transcript stays whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from agentapi import Agent, Compaction, Window
from agentapi.agents.registry import load_agents
from agentapi.conversation.compaction import (
    CompactionTask,
    Summary,
    conversation_beside,
    is_crowded,
    transcript,
    whole_turns,
    with_summary,
)
from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentapi.errors import ContextTooLong, InvalidAgent, InvalidMessage
from agentapi.testing import ScriptedProvider, says
from orchestrator import Orchestrator
from orchestrator.turn_request import InternalAgent

Script = Callable[..., ScriptedProvider]
Eager = Callable[..., Orchestrator]


def talker(**more: object) -> Agent:
    compact = Compaction(keep=2, after=2)
    return Agent(name="talker", system_prompt="Talk.", provider="openai", compact=compact)


def test_the_beginning_is_summarised_and_the_model_gets_it(
    script: Script, eager_orchestrator: Eager
) -> None:
    model = script(says("a"), says("b"), says("c"), says("They said one and two."), says("d"))
    orchestrator = eager_orchestrator([talker()])
    for said in ("one", "two", "three"):
        orchestrator.enqueue("talker", said, conversation_id="c").result()
    # Four messages of six are in the summary now.
    asked = model.requests[3]
    assert asked.system_prompt.startswith("Summarise the conversation")
    assert asked.messages[0].content == "user: one\nassistant: a\nuser: two\nassistant: b"
    assert orchestrator.store.summary("c") == Summary(
        text="They said one and two.", covered=4, total=6
    )
    orchestrator.enqueue("talker", "four", conversation_id="c").result()
    request = model.requests[4]
    assert request.system_prompt == with_summary("Talk.", "They said one and two.")
    assert [message.content for message in request.messages] == ["three", "c", "four"]
    # Nothing is deleted by it.
    assert len(orchestrator.history("c")) == 8
    orchestrator.reset("c")
    assert orchestrator.store.summary("c") == Summary()


def test_a_summary_stands_on_the_one_before(script: Script, eager_orchestrator: Eager) -> None:
    turns = [says(f"reply {number}") for number in range(5)]
    model = script(*turns[:3], says("first"), *turns[3:], says("second"))
    orchestrator = eager_orchestrator([talker()])
    for number in range(5):
        orchestrator.enqueue("talker", f"message {number}", conversation_id="c").result()
    assert orchestrator.store.summary("c") == Summary(text="second", covered=8, total=10)
    asked = model.requests[-1].messages[0].content
    assert asked.startswith("Summary of what came before:\nfirst")
    assert "message 2" in asked
    assert "message 1" not in asked


def test_a_summary_that_fails_is_in_nobodys_way(script: Script, eager_orchestrator: Eager) -> None:
    script(says("a"), says("b"), says("c"), RuntimeError("down"), says("d"), says("now"))
    orchestrator = eager_orchestrator([talker()])
    for said in ("one", "two", "three"):
        orchestrator.enqueue("talker", said, conversation_id="c").result()
    assert orchestrator.store.summary("c").covered == 0
    assert orchestrator.enqueue("talker", "four", conversation_id="c").result().text == "d"


def test_pieces_end_with_whole_turns() -> None:
    said, answered = UserMessage(content="u"), AssistantMessage(content="a")
    called = AssistantMessage(content="", tool_calls=(ToolCall(id="1", name="look", arguments={}),))
    result = ToolMessage(call_id="1", name="look", content="seen")
    history: list[Message] = [said, called, result, answered, said, answered]
    assert whole_turns(history, 5) == 4
    assert whole_turns(history, 3) == 0
    assert whole_turns([said, answered, said], 2) == 2
    assert transcript("", history[:3]) == "user: u\nassistant:  [calls look]\nlook: seen"
    assert with_summary("", "s").endswith("s")
    assert with_summary("p", "") == "p"


def test_what_is_no_compaction() -> None:
    with pytest.raises(InvalidAgent, match="keep is 0"):
        Compaction(keep=0)


def test_the_providers_counts_calibrate_the_window(
    script: Script, eager_orchestrator: Eager
) -> None:
    # Each message of 396 bytes is estimated at 101 tokens; the provider counts four times that.
    text = "x" * 396
    heavy = says(text, input_tokens=5000)
    model = script(*[heavy] * 3)
    agent = Agent(name="a", provider="openai", window=Window(messages=None, tokens=500))
    orchestrator = eager_orchestrator([agent])
    for _ in range(3):
        orchestrator.enqueue("a", text, conversation_id="c").result()
    # By the estimate both turns before would fit; by the provider's counts only the newest.
    assert [len(request.messages) for request in model.requests] == [1, 3, 3]


def test_what_a_summary_is_of_follows_from_where_the_turn_runs() -> None:
    for conversation in ("c", "x" * 512):
        task = CompactionTask(conversation_id=conversation, agent="talker", generation=0)
        beside = conversation_beside(conversation)
        assert len(beside) <= 512
        assert CompactionTask.of_turn(beside, task.to_message()) == task
        for elsewhere in ("c", "victim", conversation_beside("other"), "evil/agentapi.compact"):
            with pytest.raises(InvalidMessage, match="does not belong to"):
                CompactionTask.of_turn(elsewhere, task.to_message())


@pytest.mark.parametrize(
    "message", ["", "hi", "[]", "null", '{"conversation": "c"}', '{"v": 1, "generation": []}']
)
def test_messages_that_are_no_task(message: str) -> None:
    with pytest.raises(InvalidMessage):
        CompactionTask.of_turn(conversation_beside("c"), message)


@pytest.mark.parametrize("agent", ["agentapi.compact", "agentapi.gather", "agentapi.chain"])
def test_nobody_enqueues_turns_of_the_runtime(
    script: Script, eager_orchestrator: Eager, agent: str
) -> None:
    script()
    orchestrator = eager_orchestrator([talker()])
    task = CompactionTask(conversation_id="victim", agent="talker", generation=0)
    with pytest.raises(InternalAgent, match="cannot be enqueued by name"):
        orchestrator.enqueue(agent, task.to_message(), conversation_id="victim/agentapi.compact")
    with pytest.raises(InternalAgent):
        orchestrator.gather([(agent, "hi")])
    with pytest.raises(InternalAgent):
        orchestrator.chain([(agent, "hi")])
    module = ModuleType("agents_of_a_test")
    module.__dict__["mine"] = Agent(name=agent, provider="openai")
    sys.modules[module.__name__] = module
    try:
        with pytest.raises(InvalidAgent, match="are reserved"):
            load_agents([module.__name__])
    finally:
        del sys.modules[module.__name__]


TEXT = "x" * 392
"""100 estimated tokens as a message."""


def test_a_window_in_tokens_is_summarised_before_it_overflows(
    script: Script, eager_orchestrator: Eager
) -> None:
    """The model sees each message or its summary, though `keep` and `after` would fit no window."""
    agent = Agent(
        name="a",
        provider="openai",
        window=Window(tokens=1000),
        compact=Compaction(keep=20, after=20),
    )
    # Three turns of 200 tokens stay below three quarters of the window; the fourth does not.
    replies = [says(TEXT, input_tokens=0) for _ in range(6)]
    model = script(*replies[:4], says("so far"), *replies[4:])
    orchestrator = eager_orchestrator([agent])
    for _ in range(4):
        orchestrator.enqueue("a", TEXT, conversation_id="c").result()
    # Half of the window is kept, five messages, and the turn that these begin in.
    assert orchestrator.store.summary("c") == Summary(text="so far", covered=2, total=8)
    orchestrator.enqueue("a", TEXT, conversation_id="c").result()
    assert "so far" in model.requests[5].system_prompt
    assert len(model.requests[5].messages) == 6 + 1


def test_a_window_smaller_than_what_is_kept_has_no_gap(
    script: Script, eager_orchestrator: Eager
) -> None:
    agent = Agent(name="a", provider="openai", window=4, compact=Compaction(keep=20, after=20))
    model = script(*[says("a")] * 3, says("so far"), says("b"))
    orchestrator = eager_orchestrator([agent])
    for _ in range(3):
        orchestrator.enqueue("a", "hi", conversation_id="c").result()
    assert orchestrator.store.summary("c") == Summary(text="so far", covered=4, total=6)
    orchestrator.enqueue("a", "hi", conversation_id="c").result()
    assert "so far" in model.requests[-1].system_prompt
    assert len(model.requests[-1].messages) == 2 + 1


def test_a_model_reads_in_pieces_what_it_cannot_read_at_once(
    script: Script, eager_orchestrator: Eager
) -> None:
    agent = Agent(name="a", provider="openai", compact=Compaction(keep=2, after=6))
    long = ContextTooLong("too long", provider="openai", status=400)
    # Eight messages are too long, then four, then two; two more come after the first two.
    model = script(
        *[says("reply")] * 5,
        *[long, long, says("one"), says("two"), says("three"), says("four")],
    )
    orchestrator = eager_orchestrator([agent])
    for number in range(5):
        orchestrator.enqueue("a", f"message {number}", conversation_id="c").result()
    assert orchestrator.store.summary("c") == Summary(text="four", covered=8, total=10)
    asked = [request.messages[0].content for request in model.requests[5:]]
    assert [text.count("user: message") for text in asked] == [4, 2, 1, 1, 1, 1]


def test_a_turn_too_long_for_the_model_is_summarised_by_its_beginning(
    script: Script, eager_orchestrator: Eager
) -> None:
    agent = Agent(name="a", provider="openai", compact=Compaction(keep=1, after=1))
    long = ContextTooLong("too long", provider="openai", status=400)
    model = script(says("r"), says("r"), long, long, long, says("short"))
    orchestrator = eager_orchestrator([agent])
    for _ in range(2):
        orchestrator.enqueue("a", "y" * 5000, conversation_id="c").result()
    assert orchestrator.store.summary("c").text == "short"
    sizes = [len(request.messages[0].content) for request in model.requests[2:]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1500


def test_how_much_stays_out_of_a_summary() -> None:
    messages: list[Message] = [UserMessage(content=TEXT)] * 10
    compaction = Compaction(keep=6, after=2)
    assert compaction.newest(Window(), messages, 1.0) == 6
    assert compaction.newest(Window(messages=50), messages, 1.0) == 6
    assert compaction.newest(Window(messages=4), messages, 1.0) == 2
    assert compaction.newest(Window(tokens=1000), messages, 1.0) == 5
    assert compaction.newest(Window(tokens=1000), messages, 2.5) == 2
    assert compaction.newest(Window(tokens=10), messages, 1.0) == 1
    assert compaction.newest(Window(messages=0), [], 1.0) == 1
    assert not is_crowded(Window(), messages, 4.0)
    assert not is_crowded(Window(tokens=1400), messages, 1.0)
    assert is_crowded(Window(tokens=1300), messages, 1.0)
    assert is_crowded(Window(messages=9), messages, 1.0)
    old = b'{"v":1,"conversation":"c","agent":"a","generation":0}'
    assert CompactionTask.of_turn(conversation_beside("c"), old.decode()).keep is None
