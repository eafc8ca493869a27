"""Questions in the terminal: what is a decision, and what is none."""

import re
from pathlib import Path

import pytest

from tests.acceptance.terminal.conftest import Open
from tests.acceptance.terminal.test_chat import ask, gate_in


@pytest.mark.behaviour("terminal:approval:choices", "terminal:approval:several")
def test_two_approvals_one_after_the_other(open_chat: Open) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say("two")
    shown = chat.until("[a]pprove [A]lways [r]eject")
    assert "helper asks to call shell\n  │ command: echo one\nReason: tool_approvals: shell\n[a]pprove" in shown
    assert "echo two" not in shown
    chat.type("a")
    chat.until("  │ command: echo two")
    chat.until(lambda shown: shown.count("[a]pprove") == 2)
    chat.type("r")
    chat.until("Reason (Enter for none):")
    chat.say("too risky")
    shown = chat.at_prompt(2)
    assert '"echo one")... Done.' in shown
    assert '"echo two")... Denied.' in shown


@pytest.mark.behaviour("terminal:approval:choices")
def test_always_asks_no_more(open_chat: Open) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say("run echo once")
    chat.until("[r]eject")
    chat.type("A\r")
    chat.at_prompt(2)
    shown = ask(chat, "run echo again")
    assert 'Calling shell(command="echo again")... Done.' in shown
    assert shown.count("[r]eject") == 1


@pytest.mark.behaviour("terminal:approval:no-typeahead")
def test_what_was_typed_before_the_question_is_no_answer(open_chat: Open, tmp_path: Path) -> None:
    gate = gate_in(tmp_path)
    chat = open_chat()
    chat.at_prompt()
    chat.say("gated two")
    chat.until("Two")
    chat.type("aaa")
    gate.write_text("go")
    shown = chat.until("[r]eject")
    assert "Done." not in shown
    chat.type("r\r")  # somebody who was typing confirms
    assert "echo two" not in chat.until("Reason (Enter for none):")
    chat.say("")
    chat.until(lambda shown: shown.count("[r]eject") == 2)
    chat.type("r\r")
    chat.until(lambda shown: shown.count("Reason (Enter for none):") == 2)
    chat.say("")
    assert chat.until("> aaa").endswith("\n\n> aaa")


@pytest.mark.behaviour("terminal:approval:silence")
def test_a_word_that_is_being_typed_decides_nothing(open_chat: Open) -> None:
    chat = open_chat("--silence", "3600")
    chat.at_prompt()
    chat.say("run echo hi")
    chat.until("[r]eject")
    for key in "a r A":
        chat.type(key)
    chat.until("[r]eject a r A")
    chat.type("\x03")
    shown = chat.until("> a r A")
    assert "Done." not in shown
    assert "Cancelled.\n\n> a r A" in shown


@pytest.mark.behaviour("terminal:approval:always-twice")
def test_always_needs_a_second_key(open_chat: Open) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say("run echo once")
    chat.until("[r]eject")
    chat.type("A")
    chat.until("[r]eject always? Enter or A again:")
    chat.type("A")
    assert "[r]eject always\n" in chat.at_prompt(2)


@pytest.mark.behaviour("terminal:cancel:at-question")
@pytest.mark.parametrize("before", ["", "\x1b[200~pasted\x1b[201~", "r"])
def test_ctrl_c_at_a_question_cancels_and_nothing_is_asked_again(open_chat: Open, before: str) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say("two")
    chat.until("[r]eject")
    chat.type(before)
    chat.until({"": "[r]eject", "r": "Reason (Enter for none):"}.get(before, "[r]eject pasted"))
    chat.type("\x03")
    shown = chat.until(lambda shown: bool(re.search(r"\n\nCancelled\.\n\n>( pasted)?$", shown)))
    assert shown.count("asks to call") == 1
    assert "elsewhere" not in shown
