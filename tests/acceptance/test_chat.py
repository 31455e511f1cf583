"""`agentapi chat`, `enqueue --stream` and `follow` in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi import TurnStatus
from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.acceptance.terminal import CTRL_C, CTRL_D, Terminal
from tests.acceptance.test_cli import agentapi


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    agents = ("tests.acceptance.agents",)
    with Stack(
        folder, agents=agents, workers=1, flower=False, heartbeat=0.5, unknown_agent_wait=0.5
    ) as running:
        yield running


@pytest.fixture
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    with Orchestrator(stack.settings) as running:
        yield running


def chat(stack: Stack, *arguments: str) -> Terminal:
    return Terminal("chat", *arguments, redis_url=stack.redis_url)


def test_messages_commands_and_a_resumed_conversation(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with chat(stack, "tools", "--conversation", "talk:1") as terminal:
        terminal.wait_for("conversation talk:1; /help lists commands")
        terminal.wait_for("no messages\nyou> ")
        terminal.type("good morning")
        terminal.wait_for("You said: good morning\n[^\n]*: 1 step, [0-9]+ tokens\nyou> ")
        terminal.type("/foo")
        terminal.wait_for("there is no command /foo: /help lists the commands")
        terminal.type("/help")
        for command in ("/history \\[N\\]", "/attach FILE", "/retry", "/quit", "//text"):
            terminal.wait_for(f"\n{command} ")
        terminal.type("/attach /nonesuch")
        terminal.wait_for("cannot attach /nonesuch: No such file or directory")
        terminal.type(f"/attach {tmp_path / 'note.txt'}")
        terminal.wait_for(r"with the next message: note.txt \(text/plain, 5 bytes\)")
        terminal.type('//echo {"text": "from the tool"}')
        terminal.wait_for(r"\(calls echo\)\necho: from the tool\n")
        terminal.type("/history 1")
        terminal.wait_for("\nassistant echo: from the tool\nyou> ")
        terminal.type("/retry")
        terminal.wait_for("TurnNotRetryable: ")
        terminal.type("/quit")
        assert terminal.wait() == 0
    with chat(stack, "tools", "--conversation", "talk:1") as terminal:
        terminal.wait_for(r"user good morning\nassistant You said: good morning\n")
        terminal.wait_for(r"\[file note.txt\]\n")
        terminal.wait_for("you> ")
        terminal.type("/reset")
        terminal.wait_for("6 messages deleted\nyou> ")
        terminal.press(CTRL_D)
        assert terminal.wait() == 0


def test_calls_are_approved_rejected_and_edited(stack: Stack, orchestrator: Orchestrator) -> None:
    with chat(stack, "tools", "--conversation", "sign:1", "--by", "ann") as terminal:
        terminal.wait_for("you> ")
        terminal.type('//sign {"paper": "a"}')
        terminal.wait_for(r'tools wants to call sign\(\{"paper": "a"\}\)\napprove\? \[y/n/e/l\] ')
        terminal.type("what")
        terminal.wait_for("y: approve, n: reject, e: edit the arguments")
        terminal.type("y")
        terminal.wait_for("sign: signed a\n")
        terminal.type('//sign {"paper": "b"}')
        terminal.wait_for("approve")
        terminal.type("n")
        terminal.wait_for("reason")
        terminal.type("no ink")
        terminal.wait_for("sign: This call was not allowed: no ink\n")
        terminal.type('//sign {"paper": "c"}')
        terminal.wait_for("approve")
        terminal.type("e")
        # The line holds the arguments; delete the closing brace.
        terminal.wait_for(r'arguments: \{"paper": "c"\}')
        terminal.type("\x08")
        terminal.wait_for("not JSON: .*an empty line stops editing")
        terminal.wait_for(r'arguments: \{"paper": "c"')
        terminal.type(', "pages": 2}')
        terminal.wait_for("the arguments do not match the schema of tool 'sign'")
        terminal.wait_for(r'arguments: \{"paper": "c", "pages": 2\}')
        terminal.type("\x15" + '{"paper": "d"}')
        terminal.wait_for("sign: A person changed the arguments of this call before approving it")
        terminal.wait_for("signed d\n")
        # A key that comes before the prompt is not the end of the input, but a null character.
        terminal.wait_for("\nyou> ")
        terminal.press(CTRL_D)
        assert terminal.wait() == 0
    asked = [m for m in orchestrator.history("sign:1") if m["role"] == "assistant"]
    assert asked[-2]["tool_calls"][0]["arguments"] == {"paper": "c"}


def test_a_decision_can_wait_and_a_child_turn_can_ask(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    with chat(stack, "tools", "--conversation", "later:1") as terminal:
        terminal.wait_for("you> ")
        terminal.type('//fan_out {"messages": ["/sign {\\"paper\\": \\"x\\"}"]}')
        terminal.wait_for("waits for 1 other turn")
        terminal.wait_for(r'tools wants to call sign\(\{"paper": "x"\}\)')
        terminal.type("l")
        turn_id = terminal.wait_for("or see: agentapi pending (\\S+)\nyou> ")[1]
        [call] = orchestrator.turn(turn_id).pending()
        assert call.turn_id != turn_id
        terminal.type("/quit")
        assert terminal.wait() == 0
    with chat(stack, "tools", "--conversation", "later:1") as terminal:
        terminal.wait_for(f"turn {turn_id} is parked: /follow {turn_id}\nyou> ")
        terminal.type("/follow")
        terminal.wait_for("approve")
        # Somebody else decides first.
        orchestrator.turn(turn_id).approve(call.call_id, by="bob")
        terminal.type("n")
        terminal.wait_for("reason")
        terminal.type("")
        terminal.wait_for("(was approved by bob already|has no pending call)")
        terminal.wait_for("signed x")
        terminal.type("/quit")
        assert terminal.wait() == 0


def test_ctrl_c_cancels_the_turn_and_a_second_one_ends_the_chat(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    with chat(stack, "tools", "--conversation", "stop:1") as terminal:
        terminal.wait_for("you> ")
        terminal.type('//nap {"seconds": 600}')
        terminal.wait_for("calls nap")
        terminal.press(CTRL_C)
        terminal.wait_for("cancel: (requested|cancelled); Ctrl-C again ends the chat")
        terminal.wait_for("TurnCancelled: turn (\\S+) was cancelled\nyou> ")
        terminal.type("still there?")
        terminal.wait_for("You said: still there\\?\n")
        terminal.wait_for("you> ")
        terminal.interrupt("Ctrl-C again, Ctrl-D or /quit ends the chat\nyou> ")
        terminal.interrupt("Ctrl-C again, Ctrl-D or /quit ends the chat")
        assert terminal.wait() == 130


def test_an_unknown_agent_ends_the_chat(stack: Stack) -> None:
    with chat(stack, "nonesuch") as terminal:
        terminal.wait_for("you> ")
        terminal.type("hello")
        terminal.wait_for("UnknownAgent: agent 'nonesuch' is not registered here")
        assert "agentapi.chain" not in terminal.shown
        assert terminal.wait() == 3
    # Without a terminal, the turn itself says so.
    done = agentapi("chat", "nonesuch", redis_url=stack.redis_url, said="hello\nhello\n")
    assert done.returncode == 3
    assert done.stderr.count("TurnFailed: ") == 1
    assert "agentapi.chain" not in done.stderr


def test_a_chat_without_a_terminal(stack: Stack) -> None:
    said = 'hello\n//sign {"paper": "a"}\ne\n{"paper": "b"}\n/history 1\n//sign {"paper": "c"}\n'
    done = agentapi("chat", "tools", "--json", redis_url=stack.redis_url, said=said)
    # Nobody decides about the last call.
    assert done.returncode == 5, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "conversation"
    results = [line["text"] for line in lines if line["type"] == "result"]
    assert results[0] == "You said: hello"
    assert results[1].endswith("signed b")
    asked = [line["arguments"] for line in lines if line["type"] == "approval"]
    assert asked == [{"paper": "a"}, {"paper": "c"}]
    assert [line["role"] for line in lines if line["type"] == "message"] == ["assistant"]
    failed = agentapi("chat", "faulty", "--json", redis_url=stack.redis_url, said="hello\n")
    assert failed.returncode == 1
    assert json.loads(failed.stderr)["error"]["code"] == "turn_failed"


def test_ctrl_c_leaves_a_followed_turn_running(stack: Stack, orchestrator: Orchestrator) -> None:
    # Its reply takes longer than this test does on any machine.
    words = " ".join(["word"] * 3000)
    with Terminal("enqueue", "slow", words, "--stream", redis_url=stack.redis_url) as terminal:
        terminal.wait_for("You said: word word ")
        terminal.press(CTRL_C)
        turn_id = terminal.wait_for("the turn continues: agentapi follow (\\S+)\n")[1]
        assert terminal.wait() == 130
    turn = orchestrator.turn(turn_id)
    assert turn.status() is TurnStatus.RUNNING
    with Terminal("follow", turn_id, redis_url=stack.redis_url) as terminal:
        terminal.wait_for("You said: word word ")
        turn.cancel()
        terminal.wait_for("TurnCancelled: ")
        assert terminal.wait() == 1


def test_what_happens_meanwhile_is_shown(stack: Stack, orchestrator: Orchestrator) -> None:
    waits = r"\(waiting for busy, next try in [^)]*\)"
    with Terminal("enqueue", "busy", "hello", "--wait", redis_url=stack.redis_url) as terminal:
        terminal.wait_for(waits)
        terminal.press(CTRL_C)
        turn_id = terminal.wait_for("the turn continues: agentapi follow (\\S+)\n")[1]
        assert terminal.wait() == 130
    with Terminal("follow", turn_id, "--timeout", "2", redis_url=stack.redis_url) as terminal:
        terminal.wait_for(waits)
        terminal.wait_for("TurnTimeout: turn \\S+ has not ended within the timeout")
        assert terminal.wait() == 6


def test_control_characters_of_a_model_do_not_reach_the_terminal(stack: Stack) -> None:
    text = "red \x1b[31m bell \x07"
    shown = agentapi("enqueue", "tools", text, "--wait", redis_url=stack.redis_url)
    assert shown.stdout == f"You said: {text}\n"
    with Terminal("enqueue", "tools", text, "--stream", redis_url=stack.redis_url) as terminal:
        terminal.wait_for(r"You said: red \\x1b\[31m bell \\x07\n")
        assert terminal.wait() == 0
    assert "\x1b" not in terminal.shown


def test_reset_asks_first(stack: Stack, orchestrator: Orchestrator) -> None:
    orchestrator.enqueue("tools", "hello", conversation_id="reset:1").result(timeout=150)
    for answer, code, left in (("n", 130, 2), ("y", 0, 0)):
        with Terminal("reset", "reset:1", redis_url=stack.redis_url) as terminal:
            terminal.wait_for("Delete 2 messages of reset:1\\? ")
            terminal.type(answer)
            assert terminal.wait() == code
        assert len(orchestrator.history("reset:1")) == left
