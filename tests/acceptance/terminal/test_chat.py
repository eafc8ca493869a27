"""The chat as a person sees it, in a pseudo terminal."""

import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.terminal.conftest import Open, Terminal


def session_of(shown: str) -> str:
    found = re.search(r"^Session: ([0-9a-f-]{36})$", shown, re.M)
    assert found is not None, shown
    return found[1]


def sessions(home: Path) -> list[str]:
    """The sessions in the database."""
    with closing(sqlite3.connect(home / "flux.db")) as connection:
        return [id for (id,) in connection.execute("select id from executions")]


def gate_in(home: Path) -> Path:
    """What the scripted model waits for after its first word."""
    gate = home / "gate"
    os.mkfifo(gate)
    return gate


def ask(terminal: Terminal, text: str) -> str:
    """Say something and wait for the next prompt."""
    prompts = len(re.findall(r"^>", terminal.at_prompt(), re.M))
    terminal.say(text)
    return terminal.at_prompt(prompts + 1)


@pytest.mark.behaviour("terminal:header:exact", "terminal:leaving:resume-hint")
def test_the_header_and_the_farewell(open_chat: Open) -> None:
    chat = open_chat("--notice", "No key is set: the demo model answers.")
    lines = chat.at_prompt().split("\n")
    id = session_of(chat.shown)
    assert lines == [
        "Flux Agent — helper",
        f"Session: {id}",
        "Type /help for commands, Ctrl+D to exit.",
        "No key is set: the demo model answers.",
        "",
        ">",
    ]
    ask(chat, "echo hello")
    chat.type("\x04")
    assert chat.exit_code() == 0
    assert chat.shown.endswith(f"Session: {id}\nResume with: flux chat --session {id}")


@pytest.mark.behaviour("terminal:leaving:nothing-said")
@pytest.mark.parametrize("leave", ["\x04", "/help\r/quit\r", signal.SIGTERM, signal.SIGHUP])
def test_a_session_in_which_nothing_was_said_is_removed(
    open_chat: Open, tmp_path: Path, leave: str | signal.Signals
) -> None:
    chat = open_chat()
    chat.at_prompt()
    if isinstance(leave, str):
        chat.type(leave)
    else:
        chat.kill(leave)
    assert chat.exit_code() == (0 if isinstance(leave, str) else 128 + leave)
    assert "Resume with" not in chat.shown
    assert sessions(tmp_path) == []


@pytest.mark.behaviour("terminal:leaving:nothing-said")
def test_a_resumed_session_stays_when_nothing_is_said(open_chat: Open, tmp_path: Path) -> None:
    first = open_chat()
    id = session_of(first.at_prompt())
    again = open_chat("--session", id)
    again.at_prompt()
    again.type("\x04")
    assert again.exit_code() == 0
    assert again.shown.endswith(f"Resume with: flux chat --session {id}")
    assert sessions(tmp_path) == [id]


@pytest.mark.behaviour("terminal:answer:markdown")
def test_markdown_is_rendered(open_chat: Open) -> None:
    shown = ask(open_chat("--delay", "0.002"), "markdown")
    assert "A paragraph with bold, italic, code and a link (https://example.org/a). It goes\non, long" in shown
    assert " 1. first\n 2. second\n     • nested\n" in shown
    assert "\n  def hello(name: str) -> str:\n      # says hello\n" in shown
    assert shown.count("A quote at the end.") == 1
    assert "**" not in shown
    assert "```" not in shown


@pytest.mark.behaviour("terminal:answer:once")
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 15)])
def test_long_answers_are_in_the_scrollback_once(open_chat: Open, columns: int, lines: int) -> None:
    chat = open_chat("--delay", "0.001", columns=columns, lines=lines)
    shown = ask(chat, "long")
    paragraphs = [int(n) for n in re.findall(r"^Paragraph number (\d+)\.$", shown, re.M)]
    assert paragraphs == list(range(1, 41))
    shown = ask(chat, "code")
    assert [int(n) for n in re.findall(r"^  line_(\d+) = \1$", shown, re.M)] == list(range(1, 61))
    assert shown.count("After the code.") == 1


@pytest.mark.behaviour("terminal:screen:narrow")
def test_a_narrow_terminal(open_chat: Open) -> None:
    shown = ask(open_chat("--delay", "0.002", columns=40, lines=15), "markdown")
    assert "a link (https://example.org/a). It goes\non, long enough" in shown
    assert "read    shows a file, whatever its size,\n        in pages that a person can read\n" in shown


@pytest.mark.behaviour("terminal:tools:outcome")
def test_tool_lines_tell_the_outcome(open_chat: Open) -> None:
    shown = ask(open_chat(), "parallel")
    assert 'Calling list_directory(path=".")... Done.\n' in shown
    assert 'Calling read_file(path="missing.txt")... Failed: missing.txt: no such file or' in shown
    assert shown.count("Calling") == 2


@pytest.mark.behaviour("terminal:tools:live-output")
def test_the_last_lines_of_a_running_tool_are_shown(open_chat: Open) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say("count")
    chat.until("[a]pprove")
    chat.type("a")
    chat.until(lambda shown: bool(re.search(r"\.\.\.(?: \d s)?(?:\n  line \d){3}$", shown)))
    shown = chat.at_prompt(2)
    assert "line" not in shown.partition("... Done.")[2].partition("All done.")[0]


@pytest.mark.behaviour("terminal:leaving:during-run")
def test_ctrl_d_during_a_run_leaves_when_it_ends(open_chat: Open, tmp_path: Path) -> None:
    gate = gate_in(tmp_path)
    chat = open_chat()
    chat.at_prompt()
    chat.say("gated echo slowly")
    chat.until("You")
    chat.type("\x04")
    chat.until("Leaving when this run ends; Ctrl+C cancels it.")
    gate.write_text("go")
    assert chat.exit_code() == 0
    assert "You said 'echo slowly'." in chat.shown
    assert "Resume with: flux chat --session" in chat.shown


@pytest.mark.behaviour("terminal:leaving:words")
@pytest.mark.parametrize("word", ["exit", "quit"])
def test_a_bare_word_leaves(open_chat: Open, word: str) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say(word)
    assert chat.exit_code() == 0


@pytest.mark.behaviour("terminal:model:shown")
def test_the_model_is_named(open_chat: Open) -> None:
    chat = open_chat("--model", "scripted/other", "--notice", "Model: scripted/other")
    assert chat.at_prompt().endswith("to exit.\nModel: scripted/other\n\n>")
    assert "scripted/other; /model default returns to scripted/test (the agent's own)" in ask(chat, "/model").replace(
        "\n", " "
    )
    assert "\nModel: scripted/other\n" in ask(chat, "/session")
    assert "Model of the next messages: scripted/test (the agent's own)" in ask(chat, "/model default")
    assert "\nModel: scripted/test (the agent's own)\n" in ask(chat, "/session")


@pytest.mark.behaviour("terminal:resume:last-exchange")
def test_a_resumed_session_looks_as_it_did(open_chat: Open) -> None:
    first = open_chat("--delay", "0.001")
    ask(first, "echo earlier")
    ask(first, "parallel")
    shown = ask(first, "markdown")
    first.say("/quit")
    first.exit_code()
    second = open_chat("--session", session_of(shown)).at_prompt(2)
    note = f"… 2 earlier messages; flux agent session show {session_of(shown)}\n"
    assert note.replace("\n", "") in second.replace("\n", " ").replace("  ", " ").replace("show ", "show ")
    assert second.partition("> markdown")[2].rstrip(">\n ") == shown.partition("> markdown")[2].rstrip(">\n ")


@pytest.mark.behaviour("terminal:question:number-or-text")
def test_a_question_takes_a_number(open_chat: Open) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say("ask")
    shown = chat.until("Number or text:")
    assert "Which colour do you like best?\n  1. red\n  2. green\n  3. blue\nNumber or text:" in shown
    chat.say("2")
    assert "All done." in chat.at_prompt(2)


@pytest.mark.behaviour("terminal:cancel:keeps-session")
def test_ctrl_c_cancels_the_run_and_keeps_the_session(open_chat: Open) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say("endless")
    chat.until("Working on it")
    chat.type("\x03")
    shown = chat.at_prompt(2)
    assert shown.endswith("> endless\n\nWorking on it\n\nCancelled.\n\n>")
    assert "You said 'echo still here'." in ask(chat, "echo still here")


@pytest.mark.behaviour("terminal:cancel:at-prompt")
def test_ctrl_c_at_the_prompt_clears_the_line_and_then_tells_how_to_leave(open_chat: Open) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.type("half a line")
    chat.until("> half a line")
    chat.type("\x03")
    chat.at_prompt()
    chat.type("\x03\x03")
    assert "Ctrl+D leaves; the session can be resumed." in chat.at_prompt(2)


@pytest.mark.behaviour("terminal:safety:controls-shown")
def test_control_sequences_of_the_model_do_nothing(open_chat: Open) -> None:
    chat = open_chat()
    shown = ask(chat, "evil")
    assert "␛]0;stolen␇␛[2J␛[31mred <U+202E>gnihton<U+009B>5n" in shown
    assert 'Calling read_file(path="\\u001b[2Jevil<U+202E>")... Failed:' in shown
    assert not re.search("\x1b]|\x1b\\[2J|\x1b\\[31mred|\u202e|\x9b", chat.raw)


@pytest.mark.behaviour("terminal:answer:attempts")
def test_an_aborted_attempt_is_told(open_chat: Open) -> None:
    shown = ask(open_chat(), "flaky")
    assert "A start that\n\n… the connection broke; trying again in 1 s (attempt 2)\n\nI am scripted/demo" in shown


@pytest.mark.behaviour("terminal:errors:one-line")
def test_a_failed_run_is_one_line_and_the_chat_goes_on(open_chat: Open) -> None:
    chat = open_chat()
    assert "> fail\n\nError: the key was refused\n\n>" in ask(chat, "fail")
    assert "You said 'echo on'." in ask(chat, "echo on")


@pytest.mark.behaviour("terminal:prompt:several-lines")
def test_several_lines_are_one_message(open_chat: Open) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.type("echo one\x1b\rtwo\x1b[200~\nthree\nfour\x1b[201~")
    chat.until("  four")
    chat.type("\r")
    assert "You said 'echo one\\ntwo\\nthree\\nfour'." in chat.at_prompt(2)


@pytest.mark.behaviour("terminal:prompt:typed-during-run")
def test_what_is_typed_during_a_run_waits_for_the_prompt(open_chat: Open, tmp_path: Path) -> None:
    gate = gate_in(tmp_path)
    chat = open_chat()
    chat.at_prompt()
    chat.say("gated echo slowly")
    chat.until("You")
    chat.type("echo next")
    gate.write_text("go")
    shown = chat.until("\n> echo next")
    assert shown.endswith("> gated echo slowly\n\nYou said 'echo slowly'.\n\n> echo next")


@pytest.mark.behaviour("terminal:modes:during-run")
def test_a_line_that_is_sent_during_a_run_is_queued_and_answered(open_chat: Open, tmp_path: Path) -> None:
    gate = gate_in(tmp_path)
    chat = open_chat()
    chat.at_prompt()
    chat.say("gated echo slowly")
    chat.until("You")
    chat.say("echo next")
    chat.until("(queued)")
    gate.write_text("go")
    assert chat.until("You said 'echo next'.").count("> echo next") == 2
    chat.until(lambda shown: shown.endswith("\n>"))


@pytest.mark.behaviour("terminal:resume:asks-again")
def test_a_resumed_session_asks_again(open_chat: Open) -> None:
    first = open_chat()
    ask(first, "echo earlier")
    first.say("run echo hi")
    first.until("[r]eject")
    first.type("\x04")
    assert first.exit_code() == 0
    second = open_chat("--session", session_of(first.shown))
    shown = second.until("[r]eject")
    assert "> echo earlier\n\nYou said 'echo earlier'.\n\n> run echo hi\n\nI will use shell." in shown
    second.type("a")
    assert 'Calling shell(command="echo hi")... Done.\n\nAll done.\n\n>' in second.until(lambda s: s.endswith("\n>"))


@pytest.mark.behaviour("terminal:leaving:signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_quietly_and_the_session_goes_on_later(open_chat: Open, number: signal.Signals) -> None:
    chat = open_chat()
    chat.at_prompt()
    chat.say("endless")
    before = chat.until("Working on it")
    chat.kill(number)
    assert chat.exit_code() == 128 + number
    assert chat.shown == before
    again = open_chat("--session", session_of(before))
    again.until("> endless\n\nWorking on it")
    again.type("\x03")
    again.until("Cancelled.\n\n>")


@pytest.mark.behaviour("terminal:commands:known")
def test_commands(open_chat: Open) -> None:
    chat = open_chat()
    assert re.search(r"/quit +leave; the session stays", ask(chat, "/help"))
    assert "Unknown command /hepl; did you mean /help?" in ask(chat, "/hepl")
    assert "There is nothing to fork yet." in ask(chat, "/fork")
    assert "There is no message to send again." in ask(chat, "/retry")
    assert "You said 'echo hi'." in ask(chat, "echo hi")
    assert ask(chat, "/retry").count("You said 'echo hi'.") == 2
    assert re.search(r"Tokens: \d+ in, \d+ out · 2 turns", ask(chat, "/usage"))
    assert "Model of the next messages: scripted/other" in ask(chat, "/model scripted/other")
    assert "There are no open questions." in ask(chat, "/approve")
    assert "Nothing is running." in ask(chat, "/cancel")
    chat.say("/quit")
    assert chat.exit_code() == 0


@pytest.mark.behaviour("terminal:screen:plain")
@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_terminals_get_plain_text(open_chat: Open, variables: dict[str, str]) -> None:
    chat = open_chat("--delay", "0.001", **variables)
    chat.at_prompt()
    chat.say("markdown")
    chat.until("The end.")
    answer = chat.raw.partition("# Plan")[2]
    assert "A paragraph with **bold**, *italic*" in answer
    assert "\x1b" not in answer.partition("The end.")[0]


@pytest.mark.behaviour("terminal:approval:always-twice", "terminal:screen:plain")
def test_a_question_on_a_terminal_that_cannot_redraw(open_chat: Open) -> None:
    chat = open_chat(TERM="dumb")
    chat.at_prompt()
    chat.say("run echo hi")
    chat.until("[r]eject")
    chat.type("A")
    chat.until("always? Enter or A again:")
    chat.type("A")
    chat.until('Calling shell(command="echo hi")... Done.')
