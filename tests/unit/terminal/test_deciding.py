"""Keys that answer a question, and keys that somebody only types."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import DummyOutput

from flux.surfaces.terminal.ahead import text_of_keys
from flux.surfaces.terminal.deciding import SILENCE_SECONDS, Deciding
from flux.surfaces.terminal.prompt import Prompt
from flux.surfaces.terminal.questions import APPROVE, APPROVE_LABEL

LONG, SHORT = SILENCE_SECONDS, SILENCE_SECONDS / 2


class Clock:
    """Shows the time that a test sets; with `step` it goes on by itself at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Asked:
    """A person at an approval."""

    def __init__(self, draft: str = "", typed_at: float = 0.0, enter: str | None = None) -> None:
        self.clock = Clock()
        self.deciding = Deciding(
            APPROVE, enter=enter, twice="A", draft=draft, typed_at=typed_at, clock=self.clock
        )  # fmt: skip

    def key(self, key: str, after: float, *, alone: bool = True) -> str | None:
        self.clock.now += after
        self.deciding.heard()
        return self.deciding.confirm() if key == "\r" else self.deciding.press(key, alone=alone)


@pytest.mark.behaviour("terminal:approval:silence")
def test_a_key_counts_after_a_silence_only() -> None:
    assert Asked().key("a", LONG) == "a"
    assert Asked().key("R", LONG) == "r"
    asked = Asked()
    assert [asked.key(key, SHORT) for key in "later"] == [None] * 5
    assert asked.deciding.draft == "later"
    assert Asked().key("a", LONG, alone=False) is None
    assert Asked(typed_at=100.0 + LONG).key("a", LONG) is None


@pytest.mark.behaviour("terminal:approval:silence")
def test_a_key_after_a_pause_in_the_middle_of_a_text_is_confirmed() -> None:
    asked = Asked(draft="please ")
    assert asked.key("a", LONG) is None
    assert asked.deciding.hint == "approve? Enter or a again: "
    assert asked.key("d", SHORT) is None
    assert (asked.deciding.draft, asked.deciding.hint) == ("please ad", "")
    assert asked.key("a", LONG) is None
    assert asked.key("\r", SHORT) == "a"
    assert asked.deciding.draft == "please ad"


@pytest.mark.behaviour("terminal:approval:silence")
def test_enter_behind_a_text_says_which_keys_decide() -> None:
    asked = Asked()
    assert [asked.key(key, SHORT) for key in "no"] == [None] * 2
    assert asked.deciding.hint == ""
    assert asked.key("\r", SHORT) is None
    assert (asked.deciding.draft, asked.deciding.hint) == ("no\n", "(a, A, r decide; text is kept) ")


def test_a_key_that_was_pressed_too_early_may_be_pressed_again() -> None:
    asked = Asked()
    assert asked.key("a", SHORT) is None
    assert asked.key("a", LONG) == "a"
    assert asked.deciding.draft == ""


@pytest.mark.behaviour("terminal:approval:always-twice")
def test_always_is_asked_once_more() -> None:
    for second in "A\r":
        asked = Asked()
        assert asked.key("A", LONG) is None
        assert asked.deciding.hint == "always? Enter or A again: "
        assert asked.key(second, SHORT) == "A"
    asked = Asked()
    assert asked.key("A", LONG) is None
    assert asked.key("r", LONG) is None
    assert asked.deciding.draft == "Ar"
    asked.deciding.erase()
    assert asked.deciding.draft == "A"


@pytest.mark.behaviour("terminal:approval:silence")
def test_enter_counts_after_a_silence_only() -> None:
    assert Asked(enter="a").key("\r", LONG) == "a"
    assert Asked(enter="a").key("\r", SHORT) is None
    assert Asked(enter="a", draft="text").key("\r", LONG) is None
    assert Asked().key("\r", LONG) is None


@contextmanager
def keyboard() -> Iterator[PipeInput]:
    """A terminal to type into. Opened inside each test: its context is not that of a fixture."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


@pytest.mark.behaviour("terminal:approval:no-typeahead")
async def test_what_was_typed_before_and_at_a_question_is_the_next_draft() -> None:
    with keyboard() as typed:
        clock = Clock()
        prompt = Prompt(clock=clock)
        typed.send_text("and another\x1b[200~ thing\x1b[201~\r")
        prompt.hold()
        asyncio.get_running_loop().call_soon(typed.send_text, "a\x03")  # when the question is there
        with pytest.raises(KeyboardInterrupt):
            await prompt.key(APPROVE_LABEL, APPROVE)
        typed.send_text(", please\r")
        assert await prompt.message() == "and another thing\na, please"


@pytest.mark.behaviour("terminal:approval:silence")
async def test_a_decision_leaves_the_draft() -> None:
    with keyboard() as typed:
        prompt = Prompt(clock=Clock(step=1.0))
        typed.send_text("and ")
        prompt.hold()
        asyncio.get_running_loop().call_soon(typed.send_text, "r\r")
        assert await prompt.key(APPROVE_LABEL, APPROVE) == "r"
        typed.send_text("more\r")
        assert await prompt.message() == "and more"


async def test_a_message_that_is_put_back_is_not_sent_by_itself() -> None:
    with keyboard() as typed:
        prompt = Prompt(clock=Clock())
        typed.send_text("next\r")
        prompt.put_back("first")
        typed.send_text("!\r")
        assert await prompt.message() == "first\nnext!"


def test_the_text_of_keys() -> None:
    keys = [KeyPress(key) for key in ("a", "b", Keys.ControlH, Keys.Left, "c", Keys.ControlJ, "d", Keys.ControlU, "é")]
    assert text_of_keys(keys) == "ac\né"


@pytest.mark.behaviour("terminal:modes:during-run")
async def test_enter_hands_over_a_line_that_is_typed_during_a_run() -> None:
    with keyboard() as typed:
        prompt, sent, all_sent = Prompt(clock=Clock()), list[str](), asyncio.Event()

        def send(line: str) -> bool:
            if line.startswith("/"):
                return False
            sent.append(line)
            if len(sent) == 2:
                all_sent.set()
            return True

        async with asyncio.timeout(20):
            with prompt.typing(lambda: None, send):
                typed.send_text("first\rsecond \x1b\rline\r/usage\rand th")
                await all_sent.wait()
        assert sent == ["first", "second \nline"]
        assert await prompt.message() == "/usage"
        typed.send_text("en\r")
        assert await prompt.message() == "and then"
